"""Graph -> ONNX: the interpreter that writes.

It lowers late: a sum waits until a norm or something else asks for it, packed projections are cut only where
the parts are needed apart, and attention is left to the target's lowering. It knows no architecture and no
quantizer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import onnx_ir as ir

from sardonyx.export import norms, ports
from sardonyx.export.adapters import Adapter
from sardonyx.export.adapters.branches import Branches
from sardonyx.export.checkpoint import Checkpoint, Float32
from sardonyx.export.convolution import convolve
from sardonyx.export.experts import Stack, mixture
from sardonyx.export.onnx_builder import OnnxBuilder, Scales
from sardonyx.export.quantizers import Choosing, Quantizer
from sardonyx.export.recipes import Recipe
from sardonyx.export.targets import Target
from sardonyx.export.weight_file import WeightFile
from sardonyx.export.weights import Matrix, Measured, OnRead, Sampled, check_finite, unmeasured, unseen
from sardonyx.models.config import ConfigError
from sardonyx.models.graph import Activation, AttentionSpec, Expert, Linear, MixtureSpec, Weight


@dataclass(frozen=True, eq=False)
class Slice:
    """Part `index` of a packed value, whose parts are `widths` wide: cut out only if needed alone."""

    packed: ir.Value
    widths: tuple[int, ...]
    index: int


@dataclass(frozen=True, eq=False)
class Sum:
    """`a + b`, not yet in the graph: a norm that reads it first takes the addition along."""

    a: ir.Value
    b: ir.Value


@dataclass(frozen=True, eq=False)
class Normed:
    """A normed value, not yet in the graph: for who reads it first its weights may be divided at no cost."""

    x: "Value"
    weights: tuple[Weight, ...]
    norm: Callable[[Sequence[ir.Value]], norms.Norm]


Value = ir.Value | Slice | Sum | Normed


@dataclass(frozen=True)
class Plan:
    """All that decides what is written for a description."""

    checkpoint: Checkpoint
    recipe: Recipe
    target: Target
    context: int
    on_read: OnRead = unseen
    hidden_states: bool = False
    """Whether what the head reads is an output too."""
    adapters: Sequence[Adapter] = ()
    """Kept beside the weights, to be switched."""
    measured: Measured = unmeasured
    sampled: Sampled = unmeasured
    scales: Scales | None = None


class OnnxGraph:
    """Implements `models.graph.Graph` by appending nodes to an onnx-ir graph and weights to a file."""

    def __init__(self, plan: Plan, weights: WeightFile) -> None:
        self.builder = OnnxBuilder(weights, plan.context, plan.scales, plan.target.dialect)
        self.quantizer_of: dict[str, str] = {}
        self._plan = plan
        self._recipe = plan.recipe.fitted(plan.checkpoint)
        self.branches = Branches(plan.adapters)
        self._vocab, self._hidden = 0, 0
        self._positions: tuple[str, ...] = ("rows", "tokens")
        self._float = ir.TensorType(plan.target.dialect.float)

    def embed(self, table: Weight) -> Value:
        self._vocab, self._hidden = table.shape
        ids = ports.ids(self.builder)
        with self.builder.postponing():  # a tied table is measured where it is multiplied, which is last
            return self._quantizer(table).embed(self.builder, ids, self._matrix(table))

    def embed_positions(self, table: Weight) -> Value:
        places = self._plan.target.ports.places(self.builder, table.shape[0])
        return self.builder.op("Gather", self._stored(table), places, axis=0)

    def linear(self, x: Value, *layers: Linear) -> tuple[Value, ...]:
        results: list[Value] = []
        for quantizer, group in groupby(layers, key=lambda layer: self._quantizer(layer.weight)):
            stack = tuple(group)
            quantizer, matrix = self._chosen(quantizer, self._matrix(*(layer.weight for layer in stack)))
            value = self._divided(x, matrix)
            value.type, value.shape = self._float, ir.Shape([*self._positions, layers[0].inputs])
            packed = quantizer.linear(self.builder, value, matrix, self._bias(stack))
            if "rows" in self._positions:  # behind `select` nobody knows whose position it is
                name = matrix.name.removesuffix(".weight")
                packed = self.branches.added(self.builder, value, packed, stack, name)
            widths = tuple(layer.outputs for layer in stack)
            results += [packed] if len(stack) == 1 else [Slice(packed, widths, i) for i in range(len(stack))]
        return tuple(results)

    def add(self, a: Value, b: Value) -> Value:
        return Sum(self._value(a), self._value(b))

    def mul(self, a: Value, b: Value) -> Value:
        return self.builder.op("Mul", self._value(a), self._value(b))

    def scale(self, x: Value, factor: float) -> Value:
        return self.builder.op("Mul", self._value(x), self.builder.number(factor))

    def activate(self, x: Value, function: Activation) -> Value:
        return self._plan.target.activations[function](self.builder, self._value(x))

    def rms_norm(self, x: Value, weight: Weight, epsilon: float, groups: int = 1) -> Value:
        rms = self._plan.target.norms.rms
        return self._normed(x, (weight,), lambda weights: rms(weights[0], epsilon, groups))

    def layer_norm(
        self, x: Value, weight: Weight, bias: Weight | None, epsilon: float, groups: int = 1
    ) -> Value:
        weights = (weight,) if bias is None else (weight, bias)
        layer = self._plan.target.norms.layer
        return self._normed(x, weights, lambda weights: layer(weights, epsilon, groups))

    def attend(
        self, qkv: tuple[Value, Value, Value], spec: AttentionSpec, at: str, sinks: Weight | None = None
    ) -> Value:
        head_sink = self._stored(sinks) if sinks else None
        return self._plan.target.attend(self.builder, self._packed(qkv), spec, head_sink)

    def convolve(self, x: Value, weight: Weight, bias: Weight | None, at: str) -> Value:
        if self._plan.target.ports.masked:
            name = self._plan.target.name
            raise ConfigError(f"target {name} holds keys and values, and no windows of convolutions")
        return convolve(
            self.builder, self._value(x), self._stored(weight), self._stored(bias) if bias else None
        )

    def mixture(self, x: Value, scores: Value, experts: Sequence[Expert], spec: MixtureSpec) -> Value:
        layers = [layer for e in experts for layer in (e.gate, e.up, e.down)]
        quantizers = {self._quantizer(layer.weight) for layer in layers}
        if len(quantizers) > 1:
            kinds = ", ".join(sorted(map(str, quantizers)))
            raise ConfigError(f"experts of one layer are stored alike, not as {kinds}")
        stack = Stack(experts, lambda weight: self._plan.checkpoint.tensor(weight.name), self._on_read)
        values = (self._value(x), self._value(scores))
        return mixture(self.builder, values, stack, spec, quantizers.pop())

    def select(self, x: Value) -> Value:
        self._positions = ("wanted",)
        return self._plan.target.ports.select(self.builder, self._value(x), self._hidden)

    def output(self, logits: Value, hidden: Value) -> None:
        self._put_out(logits, "logits", self._vocab)
        if self._plan.hidden_states:
            self._put_out(hidden, "hidden", self._hidden)
        self.builder.write_postponed()

    def _put_out(self, value: Value, name: str, width: int) -> None:
        """As float32, whatever it was computed in."""
        made = self._value(value)
        if self.builder.float != ir.DataType.FLOAT:
            made = self.builder.op("Cast", made, to=ir.DataType.FLOAT)
        self._plan.target.ports.put_out(self.builder, made, name, width)

    def _value(self, x: Value) -> ir.Value:
        """The value as a tensor of the graph, whatever it takes to have it."""
        if isinstance(x, ir.Value):
            return x
        if isinstance(x, Sum):
            return self.builder.once(x, lambda: self.builder.op("Add", x.a, x.b))
        if isinstance(x, Normed):
            return self.builder.once(x, lambda: self._norm(x.x, x.norm([*map(self._stored, x.weights)])))
        parts = self.builder.once((x.packed, "split"), lambda: self._split(x))
        return parts[x.index]

    def _normed(
        self, x: Value, weights: tuple[Weight, ...], norm: Callable[[Sequence[ir.Value]], norms.Norm]
    ) -> Normed:
        return self.builder.once(
            (x, weights), lambda: Normed(x, weights, norm)
        )  # parallel branches share one

    def _norm(self, x: Value, norm: norms.Norm) -> ir.Value:
        if isinstance(x, Sum) and norm.groups == 1 and not self.builder.made(x):
            normed, total = norm.of_sum(self.builder, x.a, x.b)
            self.builder.once(x, lambda: total)
            return normed
        return norm.of(self.builder, self._value(x))

    def _divided(self, x: Value, matrix: Matrix) -> ir.Value:
        """The value as this matrix wants it, its inputs divided by the matrix's factors."""
        factors = matrix.factors
        if factors is None:
            return self._value(x)
        stem = matrix.name.removesuffix(".weight")
        if isinstance(x, Normed) and all(weight.shape == factors.shape for weight in x.weights):
            return self._norm(x.x, x.norm([self._stored(weight, stem, factors) for weight in x.weights]))
        inverse = np.reciprocal(factors)
        stored = self.builder.stored(
            f"{stem}.smoothing", self.builder.float, factors.shape, lambda: [inverse]
        )
        return self.builder.op("Mul", self._value(x), stored)

    def _packed(self, parts: Sequence[Value]) -> Sequence[ir.Value | None]:
        """The parts as one packed value followed by nothing, if that is how they lie; else each by itself."""
        first = parts[0]
        if isinstance(first, Slice) and all(isinstance(p, Slice) and p.packed is first.packed for p in parts):
            return [first.packed] + [None] * (len(parts) - 1)
        return [self._value(part) for part in parts]

    def _stored(self, weight: Weight, reader: str = "", factors: Float32 | None = None) -> ir.Value:
        """Norm weights, sinks and positions: no quantizer touches them. Divided for a reader if it asks."""
        name = weight.name if factors is None else f"{reader}.{'.'.join(weight.name.split('.')[-2:])}"

        def rows() -> list[Float32]:
            return [self._rows(weight) if factors is None else self._rows(weight) / factors]

        return self.builder.stored(name, self.builder.float, weight.shape, rows)

    def _vector(self, *parts: Weight | int) -> ir.Value:
        """Biases as they are, one after another; a number stands for so many zeros."""
        name = "+".join(part.name if isinstance(part, Weight) else f"{part} zeros" for part in parts)
        size = sum(part.shape[0] if isinstance(part, Weight) else part for part in parts)
        return self.builder.stored(name, self.builder.float, [size], lambda: map(self._rows, parts))

    def _rows(self, part: Weight | int) -> Float32:
        if isinstance(part, int):
            return np.zeros(part, np.float32)
        rows = self._plan.checkpoint.tensor(part.name).rows(0, part.shape[0])
        self.builder.once(("read", part), lambda: self._on_read(rows, part.name))
        return rows

    def _on_read(self, values: Float32, name: str) -> None:
        check_finite(self._plan.checkpoint, values, name)
        self._plan.on_read(values, name)

    def _split(self, x: Slice) -> Sequence[ir.Value]:
        sizes = self.builder.constant(np.array(x.widths, np.int64))
        return self.builder.ops("Split", x.packed, sizes, count=len(x.widths), axis=-1)

    def _quantizer(self, weight: Weight) -> Quantizer:
        quantizer = self._plan.target.check(self._recipe.quantizer(weight.name))
        self.quantizer_of[weight.name] = str(quantizer)
        return quantizer

    def _chosen(self, quantizer: Quantizer, matrix: Matrix) -> tuple[Quantizer, Matrix]:
        """What a quantizer that chooses makes of it. What adapters will make of inputs nobody knows."""
        if not isinstance(quantizer, Choosing) or self._plan.adapters:
            return quantizer, matrix
        chosen, factors = quantizer.chosen(matrix)
        self.quantizer_of |= {weight.name: str(chosen) for weight, _ in matrix.parts}
        return chosen, replace(matrix, factors=factors)

    def _matrix(self, *weights: Weight) -> Matrix:
        parts = tuple((weight, self._plan.checkpoint.tensor(weight.name)) for weight in weights)
        return Matrix(parts, self._on_read, self._plan.measured, self._plan.sampled)

    def _bias(self, layers: Sequence[Linear]) -> ir.Value | None:
        if not any(layer.bias for layer in layers):
            return None
        return self._vector(*(layer.bias or layer.outputs for layer in layers))
