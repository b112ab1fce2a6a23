"""What a place to run on wants to be asked: the only spot where lowering differs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from sardonyx.export import norms
from sardonyx.export.attention import gqa, plain
from sardonyx.export.onnx_builder import FLOAT32, MICROSOFT, Dialect, OnnxBuilder
from sardonyx.export.ports import LENGTHS, MASK, Ports
from sardonyx.export.quantizers import Quantizer
from sardonyx.export.quantizers.half import Half
from sardonyx.export.quantizers.nbits import NBits
from sardonyx.export.quantizers.none import Float
from sardonyx.models.graph import Activation, AttentionSpec
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.manifest import PORTABLE

Attend = Callable[[OnnxBuilder, Sequence[ir.Value | None], AttentionSpec, ir.Value | None], ir.Value]


@dataclass(frozen=True)
class Norms:
    """The nodes of norms, by kind."""

    rms: Callable[[ir.Value, float, int], norms.Norm] = norms.RMS
    layer: Callable[[Sequence[ir.Value], float, int], norms.Norm] = norms.Layer


@dataclass(frozen=True)
class Target:
    """An execution provider's dialect.

    `quantizers` are the kinds of weights that there are kernels for; None: all.
    """

    name: str
    attend: Attend
    activations: Mapping[Activation, Callable[[OnnxBuilder, ir.Value], ir.Value]]
    minimum_onnxruntime: str
    norms: Norms = Norms()
    dialect: Dialect = FLOAT32
    ports: Ports = LENGTHS
    quantizers: tuple[type[Quantizer], ...] | None = None

    def check(self, quantizer: Quantizer) -> Quantizer:
        """Raises RequestError for weights that there are no kernels for."""
        if self.quantizers is not None and not isinstance(quantizer, self.quantizers):
            raise RequestError(
                f"target {self.name} has no kernels for weights as {quantizer}; take recipe {self.recipes}"
            )
        return quantizer

    @property
    def recipes(self) -> str:
        """What the target takes, for messages."""
        if self.quantizers is None:
            return "any"
        return "int4, q8, fp32 or fp16" if Float in self.quantizers else "int4, q8 or fp16"


def _silu(g: OnnxBuilder, x: ir.Value) -> ir.Value:
    return g.op("QuickGelu", x, domain=MICROSOFT, alpha=1.0)  # x * sigmoid(1.0 * x), in one pass


_PLAIN: Mapping[Activation, Callable[[OnnxBuilder, ir.Value], ir.Value]] = {
    "silu": lambda g, x: g.op("Mul", x, g.op("Sigmoid", x)),
    "tanh": lambda g, x: g.op("Tanh", x),
    "relu": lambda g, x: g.op("Relu", x),
    "gelu": lambda g, x: g.op("Gelu", x, approximate="none"),
    "gelu_tanh": lambda g, x: g.op("Gelu", x, approximate="tanh"),
}

CPU = Target(name="cpu", attend=gqa.attend, activations={**_PLAIN, "silu": _silu}, minimum_onnxruntime="1.32")
WEBGPU = replace(
    CPU, name="webgpu", dialect=replace(FLOAT32, float=ir.DataType.FLOAT16), quantizers=(NBits, Half)
)
CUDA = replace(
    WEBGPU,
    name="cuda",
    attend=partial(gqa.attend, tell=gqa.by_mask),  # onnxruntime-gpu is behind: it takes no `query_seqlens`
    ports=MASK,
    norms=Norms(rms=norms.OlderRMS),
    dialect=replace(WEBGPU.dialect, opset=20),
    minimum_onnxruntime="1.24",
)
PLAIN = Target(
    name=PORTABLE,
    attend=plain.attend,
    activations=_PLAIN,
    minimum_onnxruntime="1.24",
    norms=Norms(norms.PlainRMS, norms.PlainLayer),
    dialect=Dialect(opset=20, plain_rows=True),
    ports=MASK,
    quantizers=(Float, Half, NBits),
)

TARGETS = {target.name: target for target in (CPU, WEBGPU, CUDA, PLAIN)}


def target_named(name: str) -> Target:
    """Raises RequestError for a target that is not known."""
    if name not in TARGETS:
        raise RequestError(f"target {name!r} is not known; known: {', '.join(TARGETS)}")
    return TARGETS[name]
