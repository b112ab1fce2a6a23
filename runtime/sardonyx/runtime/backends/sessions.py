"""Sessions of onnxruntime, on whatever provider. The only module that imports it.

onnxruntime computes on the CPU what a provider cannot, and everything when the provider does not start, and
says neither. Here both are errors, unless the caller permits them.
"""

import importlib
import importlib.util
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when the library starts

import numpy as np
import onnxruntime as ort

from sardonyx.runtime.backends.bookkeeping import KINDS, counting
from sardonyx.runtime.backends.providers import CPU, ON_CPU, PROVIDERS, Place, Provider
from sardonyx.runtime.backends.resident import Device
from sardonyx.runtime.backends.sketch import FLOAT, Port, sketch
from sardonyx.runtime.errors import ArtifactError, RequestError, SardonyxError
from sardonyx.runtime.onnx_outline import read_outline

VERSION: str = ort.__version__

LACKING = re.compile(
    r"(?:No Op registered for |Could not find an implementation for |Fatal error: )([\w.:]+)"
    r"(?: with domain_version|\(\d+\) node|\(-?\d+\) is not a registered)"
)
"""What onnxruntime says of an operator that it does not have, in three places."""


def open_session(path: Path, threads: int, place: Place = ON_CPU, *, needs: str = "") -> ort.InferenceSession:
    """A graph in a session.

    Raises ArtifactError when onnxruntime refuses the graph, which `needs` this version of it as far as that
    is known, and when the provider would leave some of its operators to the CPU; RequestError when the
    provider is not here, or its device takes no work.
    """
    options = _options(threads, place)
    if place.mapped:
        options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        session = _session(path, options, place)
    except Exception as error:
        _check_device(place)
        said = first_line(error)
        if lacking := LACKING.search(said):
            name = _spoken(place.provider)
            said = f"it has no {lacking[1]} for {name}; take a graph made for {name}, or update onnxruntime"
        known = f" (it needs {needs} or newer)" if needs else ""
        raise ArtifactError(f"{path}: onnxruntime {VERSION} cannot load it{known}: {said}") from error
    _check_place(path, session, place)
    return session


def run_once(model: bytes, feeds: dict[str, Any], place: Place) -> Any:
    """The first output of a small model, for one question to a provider: it answers itself, or raises."""
    options = _options(1, place)
    if place.provider is not CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = _session(model, options, place)
    return session.run(None, feeds)[0]


def present() -> list[Provider]:
    """The providers that have a device here, the best first."""
    return [provider for provider in PROVIDERS.values() if _built_in(provider) or _devices(provider)]


def device(place: Place) -> Device | None:
    """The memory of a place, if it has some of its own in which states can stay."""
    if place.provider.memory == "":
        return None
    if _built_in(place.provider):  # CUDA, whose values copy themselves
        number = int(place.options.get("device_id", 0))

        def made(shape: Sequence[int], dtype: Any) -> Any:
            return ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, place.provider.memory, number)

        return Device(made, lambda array, value: value.update_inplace(array), _taken)
    info = _devices(place.provider)[0].memory_info(ort.OrtDeviceMemoryType.DEFAULT)
    return Device(
        lambda shape, dtype: ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, memory_info=info),
        lambda array, value: value.update_inplace(array),
        lambda value, array: ort.copy_tensors([value], [ort.OrtValue.ortvalue_from_numpy(array)]),
    )


def _taken(value: Any, array: Any) -> None:
    array[...] = value.numpy()


def version(provider: Provider) -> str:
    """Of the provider, where it comes as a plugin; else of onnxruntime."""
    if _built_in(provider):
        return VERSION
    return next((device.ep_metadata.get("version", "") for device in _devices(provider)), "")


def _options(threads: int, place: Place) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # shapes change from pass to pass
    options.log_severity_level = 4  # what goes wrong comes as an exception, and need not be said twice
    if place.provider is CPU:
        return options
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if not _built_in(place.provider):
        devices = _devices(place.provider)
        if not devices:
            raise RequestError(f"provider {place.provider.name}: {absent(place.provider)}")
        options.add_provider_for_devices(devices[:1], dict(place.options))
    return options


def _session(model: Path | bytes, options: ort.SessionOptions, place: Place) -> ort.InferenceSession:
    if place.provider is not CPU and not _built_in(place.provider):
        return ort.InferenceSession(model, options)  # which know the device
    return ort.InferenceSession(model, options, providers=[(place.provider.kernel, dict(place.options))])


def _check_place(path: Path, session: ort.InferenceSession, place: Place) -> None:
    if place.provider is CPU or place.fallback:
        return
    kernel = place.provider.kernel
    if kernel not in session.get_providers():
        raise RequestError(
            f"provider {place.provider.name}: it did not start, and onnxruntime took the CPU instead; it "
            f"needs {place.provider.needs}; or take --provider cpu"
        )
    counts = counting(read_outline(path))
    left = {
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != kernel
        for node in part.get_nodes()
        if node.name not in counts
    } - KINDS
    if left:
        raise ArtifactError(
            f"{path}: {place.provider.name} has no kernel for {', '.join(sorted(left))}, which would run on "
            f"the CPU; export it with --target {place.provider.target} and recipe int4, or permit it with "
            "--allow-fallback"
        )


def _check_device(place: Place) -> None:
    """Raises RequestError when a provider cannot even multiply two numbers: then it is no model's fault."""
    if place.provider is CPU:
        return
    one = np.ones(1, np.float32)
    ports = [Port("a", FLOAT, 1), Port("b", FLOAT, 1)]
    try:
        run_once(sketch("Mul", ports, [Port("y", FLOAT, 1)]), {"a": one, "b": one}, place)
    except SardonyxError:
        raise
    except Exception as error:
        raise broken(place.provider, error) from error


def broken(provider: Provider, error: Exception) -> Exception:
    """What onnxruntime raises where a device takes no work or breaks it off, for people; else the same."""
    if not type(error).__module__.startswith("onnxruntime"):
        return error
    return RequestError(
        f"provider {provider.name}: its device cannot be used now ({first_line(error)}); see what else uses "
        "it or its memory, or take --provider cpu"
    )


def _built_in(provider: Provider) -> bool:
    return provider.kernel in ort.get_available_providers() and not _devices(provider)


def _devices(provider: Provider) -> list[Any]:
    """Those that the provider's plugin finds."""
    if provider.plugin and _registered(provider.kernel, provider.plugin):
        return [device for device in ort.get_ep_devices() if device.ep_name == provider.kernel]
    return []


@cache
def _registered(kernel: str, plugin: str) -> bool:
    """Whether onnxruntime has got this plugin: once, and for as long as the process lives."""
    if importlib.util.find_spec(plugin) is None:
        return False
    ort.register_execution_provider_library(kernel, importlib.import_module(plugin).get_library_path())
    return True


def absent(provider: Provider) -> str:
    """Why a provider is not here, and what to do about it."""
    if provider.plugin and importlib.util.find_spec(provider.plugin):
        return f"{provider.package} is here, but finds no device that it takes; it needs {provider.needs}"
    here = ", ".join(found.name for found in present())
    return f"not here; pip install {provider.package} (here are: {here})"


def _spoken(provider: Provider) -> str:
    return "the CPU" if provider is CPU else provider.name


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
