"""Execution providers of onnxruntime: their names, what to install for them, and the settings they take.

Tables and checks alone: which of them is there, only a session can tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.manifest import PORTABLE

Kind = type[int] | type[bool] | type[str]


@dataclass(frozen=True)
class Provider:
    """`kernel` is onnxruntime's name for it, `package` what to install, `plugin` the module that brings it to
    an onnxruntime that has it not built in. `options` are the settings that can be given, by type. `target`
    is what to export a model for, and `needs` what its device is. Of `memory` it has its own, under that name
    of onnxruntime's, if states can stay there.
    """

    name: str
    kernel: str
    package: str
    plugin: str = ""
    options: Mapping[str, Kind] = field(default_factory=lambda: MappingProxyType({}))
    target: str = PORTABLE
    needs: str = "its driver"
    memory: str = ""


CPU = Provider("cpu", "CPUExecutionProvider", "onnxruntime", target="cpu")

PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        provider.name: provider
        for provider in (
            Provider(
                "cuda",
                "CUDAExecutionProvider",
                "onnxruntime-gpu",
                options={"device_id": int, "gpu_mem_limit": int, "use_tf32": bool},
                target="cuda",
                needs="an NVIDIA card, its driver, CUDA and cuDNN",
                memory="cuda",
            ),
            Provider(
                "webgpu",
                "WebGpuExecutionProvider",
                "onnxruntime-ep-webgpu",
                plugin="onnxruntime_ep_webgpu",
                options={"deviceId": int, "powerPreference": str, "validationMode": str},
                target="webgpu",
                needs="a graphics card with a driver of Vulkan, Metal or Direct3D 12",
                memory="webgpu",
            ),
            Provider(
                "openvino",
                "OpenVINOExecutionProvider",
                "onnxruntime-ep-openvino",
                plugin="onnxruntime_ep_openvino",
                options={"device_type": str, "num_of_threads": int, "num_streams": int, "cache_dir": str},
                needs="hardware of Intel's; for other processors install onnxruntime-openvino in its place",
            ),
            Provider(
                "coreml",
                "CoreMLExecutionProvider",
                "onnxruntime (on macOS)",
                options={"ModelFormat": str, "MLComputeUnits": str},
            ),
            Provider("dml", "DmlExecutionProvider", "onnxruntime-directml", options={"device_id": int}),
            CPU,
        )
    }
)
"""The one that `auto` would rather have comes first."""

AUTO = "auto"


@dataclass(frozen=True)
class Place:
    """Where a session is to run, and from what.

    `fallback` permits that the CPU computes what the provider cannot. `mapped` uses the weights as they lie
    in the file instead of a copy arranged for speed: a float32 model then takes a fifth of the memory of its
    own and is as fast, but gives batched rows other last bits; a quantized one becomes unusably slow.
    """

    provider: Provider = CPU
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    fallback: bool = False
    mapped: bool = False


ON_CPU = Place()
MAPPED = Place(mapped=True)


def place(name: str, options: Sequence[str] = (), *, fallback: bool = False) -> Place:
    """A place by a provider's name and settings as KEY=VALUE. Raises RequestError for what is not known."""
    if name not in PROVIDERS:
        raise RequestError(f"provider {name}: not known; choose one of {', '.join((AUTO, *PROVIDERS))}")
    provider = PROVIDERS[name]
    return Place(provider, dict(_setting(provider, option) for option in options), fallback)


def _setting(provider: Provider, option: str) -> tuple[str, str]:
    key, equals, value = option.partition("=")
    if not equals:
        raise RequestError(f"provider option {option}: should be KEY=VALUE")
    if key not in provider.options:
        known = ", ".join(provider.options) or "it takes none"
        raise RequestError(f"provider option {key}: {provider.name} does not take it; known: {known}")
    return key, _text(provider.options[key], key, value)


def _text(kind: Kind, key: str, value: str) -> str:
    """As onnxruntime spells it."""
    try:
        return str(_READ[kind](value))
    except (ValueError, KeyError):
        raise RequestError(f"provider option {key}={value}: should be {_KINDS[kind]}") from None


_KINDS: Mapping[Any, str] = {int: "a whole number", bool: "true or false", str: "text"}
_READ: Mapping[Any, Any] = {
    int: lambda value: str(int(value)),
    bool: lambda value: {"true": "1", "false": "0"}[value.lower()],
    str: str,
}
