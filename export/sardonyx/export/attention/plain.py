"""Attention in plain ONNX operators, for providers that know no other: past and new tokens side by side.

The graph takes an attention mask and positions, as other programs' graphs do, and puts past and new keys and
values together itself. Nothing here is a kernel of its own; a provider fuses what it can.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from sardonyx.export.onnx_builder import OnnxBuilder
from sardonyx.export.ports import MASK, attention_mask
from sardonyx.models.graph import AttentionSpec, Rotation, StateSpec

LOWEST = -30000.0
"""The score of what is not seen: its share is zero, also in half precision, and no sum becomes infinite."""


def attend(
    g: OnnxBuilder, qkv: Sequence[ir.Value | None], spec: AttentionSpec, sinks: ir.Value | None
) -> ir.Value:
    """Emit one attention layer and declare its two states. `qkv` is (packed, None, None) or three values."""
    query, key, value = _heads(g, qkv, spec)
    if spec.rotation is not None:
        turn = _Turn(spec.rotation.at(g.context), spec.head_width)
        query, key = turn.of(g, query), turn.of(g, key)
    layer = sum(known.kind == "kv" for known, _, _ in g.states) // 2
    keys, values = (_joined(g, x, f"{layer}.{name}", spec) for x, name in ((key, "key"), (value, "value")))
    groups = spec.heads // spec.kv_heads
    grouped = g.reshaped(
        g.op("Mul", query, g.number(spec.scale)), 0, spec.kv_heads, groups, -1, spec.head_width
    )
    axis = g.constant(np.array([2], np.int64))  # [rows, kv_heads, 1, positions, width]
    turned = g.op("Unsqueeze", g.op("Transpose", keys, perm=[0, 1, 3, 2]), axis)
    scores = g.op("MatMul", grouped, turned)  # [rows, kv_heads, groups, tokens, positions]
    if spec.softcap:
        cap = g.number(spec.softcap)
        scores = g.op("Mul", g.op("Tanh", g.op("Div", scores, cap)), cap)
    shares = _shares(g, g.op("Where", _seen(g, spec.window), scores, g.number(LOWEST)), sinks, spec)
    mixed = g.op("MatMul", shares, g.op("Unsqueeze", values, axis))
    flat = g.reshaped(mixed, 0, spec.heads, -1, spec.head_width)
    return g.reshaped(g.op("Transpose", flat, perm=[0, 2, 1, 3]), 0, 0, spec.heads * spec.head_width)


def _heads(g: OnnxBuilder, qkv: Sequence[ir.Value | None], spec: AttentionSpec) -> list[ir.Value]:
    """Queries, keys and values, each `[rows, heads, tokens, width]`."""
    counts = (spec.heads, spec.kv_heads, spec.kv_heads)
    parts = qkv
    if qkv[1] is None:
        widths = np.array([count * spec.head_width for count in counts], np.int64)
        parts = g.ops("Split", qkv[0], g.constant(widths), count=3, axis=-1)
    heads = []
    for part, count in zip(parts, counts, strict=True):
        assert part is not None
        heads.append(g.op("Transpose", g.reshaped(part, 0, 0, count, spec.head_width), perm=[0, 2, 1, 3]))
    return heads


@dataclass(frozen=True)
class _Turn:
    """Rotary embedding of heads: the first channels with those as many further on, the rest as they are."""

    rotation: Rotation
    width: int

    def of(self, g: OnnxBuilder, x: ir.Value) -> ir.Value:
        pairs = len(self.rotation.frequencies)
        cosine, sine = g.once(("turn", self.rotation), lambda: self._angles(g))
        widths = [pairs, pairs] + [self.width - 2 * pairs] * (self.width > 2 * pairs)
        sizes = g.constant(np.array(widths, np.int64))
        first, second, *rest = g.ops("Split", x, sizes, count=len(widths), axis=-1)
        one = g.op("Sub", g.op("Mul", first, cosine), g.op("Mul", second, sine))
        other = g.op("Add", g.op("Mul", second, cosine), g.op("Mul", first, sine))
        return g.op("Concat", one, other, *rest, axis=-1)

    def _angles(self, g: OnnxBuilder) -> tuple[ir.Value, ir.Value]:
        """Cosine and sine, `[rows, 1, tokens, pairs]`. Angles are products of float32 numbers."""
        column = g.op("Unsqueeze", MASK.places(g, g.context), g.constant(np.array([1, 3], np.int64)))
        frequencies = g.constant(np.array(self.rotation.frequencies, np.float32))
        angles = g.op("Mul", g.op("Cast", column, to=ir.DataType.FLOAT), frequencies)
        magnitude = g.constant(np.array(self.rotation.magnitude, np.float32))
        cosine, sine = (g.op("Mul", g.op(kind, angles), magnitude) for kind in ("Cos", "Sin"))
        return _cast(g, cosine), _cast(g, sine)


def _joined(g: OnnxBuilder, new: ir.Value, name: str, spec: AttentionSpec) -> ir.Value:
    """The past of a state and what is new, which is its present."""
    shape = (spec.kv_heads, spec.head_width)
    past, present = g.state(StateSpec(name, "kv", shape), g.float)
    whole = g.op("Concat", past, new, axis=2)
    g.output(whole, present, g.float, ["rows", shape[0], "total", shape[1]])
    return whole


def _seen(g: OnnxBuilder, window: int | None) -> ir.Value:
    """`[rows, 1, 1, tokens, total]`: of what is there, that which does not lie ahead, or too far back."""

    def make() -> ir.Value:
        zero, one = (g.constant(np.array(i, np.int64)) for i in (0, 1))
        total = g.op("Squeeze", g.op("Shape", attention_mask(g), start=1, end=2))
        tokens = g.op("Squeeze", g.op("Shape", MASK.places(g, g.context), start=1, end=2))
        columns = g.op("Range", zero, total, one)
        rows = g.op("Range", g.op("Sub", total, tokens), total, one)
        ahead = g.op("Sub", g.op("Unsqueeze", rows, g.constant(np.array([1], np.int64))), columns)
        seen = g.op("GreaterOrEqual", ahead, zero)  # [tokens, total]
        if window:
            seen = g.op("And", seen, g.op("Less", ahead, g.constant(np.array(window, np.int64))))
        there = g.op(
            "Unsqueeze", g.op("Cast", attention_mask(g), to=ir.DataType.BOOL), g.constant(np.array([1, 2, 3]))
        )
        return g.op("And", there, seen)

    return g.once(("seen", window), make)


def _shares(g: OnnxBuilder, scores: ir.Value, sinks: ir.Value | None, spec: AttentionSpec) -> ir.Value:
    """Of each position, `[rows, kv_heads, groups, tokens, positions]`; what sinks take goes nowhere."""
    if sinks is None:
        return g.op("Softmax", scores, axis=-1)
    apart = g.reshaped(sinks, 1, spec.kv_heads, -1, 1, 1)
    like = g.op("Slice", scores, *(g.constant(np.array([at], np.int64)) for at in (0, 1, -1)))
    column = g.op("Add", g.op("Mul", like, g.number(0)), apart)
    shares = g.op("Softmax", g.op("Concat", scores, column, axis=-1), axis=-1)
    return g.op("Slice", shares, *(g.constant(np.array([at], np.int64)) for at in (0, -1, -1)))


def _cast(g: OnnxBuilder, x: ir.Value) -> ir.Value:
    return x if g.float == ir.DataType.FLOAT else g.op("Cast", x, to=g.float)
