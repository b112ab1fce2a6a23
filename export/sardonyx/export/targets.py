"""What a place to run on wants to be asked: the only spot where lowering differs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from sardonyx.export.attention import gqa
from sardonyx.export.onnx_builder import MICROSOFT, OnnxBuilder
from sardonyx.models.graph import Activation, AttentionSpec


@dataclass(frozen=True)
class Target:
    """An execution provider's dialect."""

    name: str
    attend: Callable[[OnnxBuilder, Sequence[ir.Value | None], AttentionSpec, ir.Value | None], ir.Value]
    activations: Mapping[Activation, Callable[[OnnxBuilder, ir.Value], ir.Value]]
    minimum_onnxruntime: str


def _silu(g: OnnxBuilder, x: ir.Value) -> ir.Value:
    return g.op("QuickGelu", x, domain=MICROSOFT, alpha=1.0)  # x * sigmoid(1.0 * x), in one pass


CPU = Target(
    name="cpu",
    attend=gqa.attend,
    activations={
        "silu": _silu,
        "tanh": lambda g, x: g.op("Tanh", x),
        "relu": lambda g, x: g.op("Relu", x),
        "gelu": lambda g, x: g.op("Gelu", x, approximate="none"),
        "gelu_tanh": lambda g, x: g.op("Gelu", x, approximate="tanh"),
    },
    minimum_onnxruntime="1.32",
)

TARGETS = {target.name: target for target in (CPU,)}
