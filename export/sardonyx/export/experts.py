"""Mixtures of experts as one node: com.microsoft MoE for float weights, QMoE for blocks of few bits.

Both want the matrices of all experts in one tensor, gate and up row by row in turns. They read only what is
chosen; nothing here is computed for an expert that no token asked for. Blocks multiply each token by itself;
floats multiply all tokens of an expert at once, so that a token's last bits depend on its company.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from sardonyx.export.checkpoint import Float32, LazyTensor
from sardonyx.export.checkpoint.pieces import Interleaved, Joined
from sardonyx.export.onnx_builder import MICROSOFT, OnnxBuilder
from sardonyx.export.quantizers import Quantizer
from sardonyx.export.quantizers.nbits import ACCURACY_LEVEL, NBits
from sardonyx.export.quantizers.none import Float
from sardonyx.export.weights import Matrix, OnRead
from sardonyx.models.config import ConfigError
from sardonyx.models.graph import Expert, MixtureSpec, Weight

Fetch = Callable[[Weight], LazyTensor]
Values = tuple[ir.Value, ir.Value]


@dataclass(frozen=True)
class Stack:
    """The experts of one layer as two stacks of matrices."""

    experts: Sequence[Expert]
    fetch: Fetch
    on_read: OnRead

    def inner(self) -> Matrix:
        """Gates and ups, `[experts * 2 * inner, hidden]`."""
        turns = [Interleaved((self.fetch(e.gate.weight), self.fetch(e.up.weight))) for e in self.experts]
        return self._matrix("gate_up_proj", Joined(turns))

    def outer(self) -> Matrix:
        """`[experts * hidden, inner]`."""
        return self._matrix("down_proj", Joined([self.fetch(e.down.weight) for e in self.experts]))

    def biases(self, g: OnnxBuilder) -> tuple[ir.Value | None, ir.Value | None]:
        """`[experts, 2 * inner]` and `[experts, hidden]`, if there are any."""
        first = self.experts[0]
        if not (first.gate.bias and first.up.bias and first.down.bias):
            return None, None
        width, hidden = 2 * first.gate.outputs, first.down.outputs

        def inner(expert: Expert) -> Float32:
            both = [self._bias(expert.gate.bias), self._bias(expert.up.bias)]
            return np.stack(both, axis=-1).reshape(-1)

        return (
            g.stored(
                self._name("gate_up_proj.bias"),
                g.float,
                (len(self.experts), width),
                lambda: map(inner, self.experts),
            ),
            g.stored(
                self._name("down_proj.bias"),
                g.float,
                (len(self.experts), hidden),
                lambda: (self._bias(expert.down.bias) for expert in self.experts),
            ),
        )

    def _matrix(self, name: str, tensor: LazyTensor) -> Matrix:
        shape = (tensor.shape[0], tensor.shape[1])
        return Matrix(((Weight(self._name(f"{name}.weight"), shape), tensor),), self.on_read)

    def _bias(self, weight: Weight | None) -> Float32:
        assert weight is not None
        values = self.fetch(weight).rows(0, weight.shape[0])
        self.on_read(values, weight.name)
        return values

    def _name(self, name: str) -> str:
        first = self.experts[0].gate.weight.name
        return f"{first.partition('.experts.')[0]}.experts.{name}"


def mixture(
    g: OnnxBuilder, values: Values, stack: Stack, spec: MixtureSpec, quantizer: Quantizer
) -> ir.Value:
    """`values` are x, `[rows, tokens, hidden]`, and scores. Raises ConfigError for a quantizer that has no
    such node.
    """
    x, scores = values
    flat = g.reshaped(scores, -1, len(stack.experts))
    if isinstance(quantizer, Float):
        return _float(g, (x, flat), stack, spec)
    if isinstance(quantizer, NBits):
        return _blocks(g, (x, flat), stack, spec, quantizer)
    raise ConfigError(f"experts cannot be stored as {quantizer}; choose recipe int4, int8 or fp32")


def _float(g: OnnxBuilder, values: Values, stack: Stack, spec: MixtureSpec) -> ir.Value:
    inner_bias, outer_bias = stack.biases(g)
    return g.op(
        "MoE",
        *values,
        _table(g, stack.inner(), len(stack.experts)),
        inner_bias,
        _table(g, stack.outer(), len(stack.experts)),
        outer_bias,
        domain=MICROSOFT,
        normalize_routing_weights=int(spec.normalized),
        **_attributes(spec),
    )


def _blocks(g: OnnxBuilder, values: Values, stack: Stack, spec: MixtureSpec, quantizer: NBits) -> ir.Value:
    inner_bias, outer_bias = stack.biases(g)
    matrices = (stack.inner(), stack.outer())
    if odd := [matrix.shape[1] for matrix in matrices if matrix.shape[1] % quantizer.block]:
        raise ConfigError(
            f"experts read {odd[0]} numbers, which are no whole blocks of {quantizer.block}; "
            "choose recipe fp32"
        )
    inner, outer = (_block_tables(g, quantizer, matrix, len(stack.experts)) for matrix in matrices)
    # without these the kernel gives each expert the same share where shares are not to be normalized
    shares = None if spec.normalized else g.op("Softmax", values[1], axis=-1)
    return g.op(
        "QMoE",
        *values,
        *(*inner[:2], inner_bias),
        *(*outer[:2], outer_bias),
        *(None, None, None),
        *(inner[2], outer[2], None),
        shares,
        domain=MICROSOFT,
        normalize_routing_weights=int(spec.normalized),
        expert_weight_bits=quantizer.bits,
        block_size=quantizer.block,
        accuracy_level=ACCURACY_LEVEL,
        **_attributes(spec),
    )


def _block_tables(
    g: OnnxBuilder, quantizer: NBits, matrix: Matrix, experts: int
) -> Sequence[ir.Value | None]:
    """Codes, scales and zero points, each `[experts, rows of one, ...]`."""
    rows = matrix.shape[0] // experts
    codes, scales, zero_points = quantizer.store(g, matrix)

    def of_experts(flat: ir.Value) -> ir.Value:
        width = prod(flat.shape.numpy()[1:]) if flat.shape else -1
        return g.alias(flat, f"{flat.name}.of_experts", (experts, rows, width))

    apart = g.reshaped(scales, experts, rows, -1)
    return of_experts(codes), apart, zero_points and of_experts(zero_points)


def _table(g: OnnxBuilder, matrix: Matrix, experts: int) -> ir.Value:
    rows, inputs = matrix.shape
    return g.stored(matrix.name, g.float, (experts, rows // experts, inputs), matrix.chunks)


def _attributes(spec: MixtureSpec) -> dict[str, str | int | float]:
    limit = {} if spec.limit is None else {"swiglu_limit": spec.limit}
    return {
        "k": spec.chosen,
        "activation_type": "swiglu",
        "swiglu_fusion": 1,
        "activation_alpha": spec.sharpness,
        "activation_beta": spec.offset,
        **limit,
    }
