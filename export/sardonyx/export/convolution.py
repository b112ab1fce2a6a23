"""Short causal convolutions over a row's last positions, in plain operators.

A row's state is a strip of its last inputs, newest last: those that the next token looks back at, and some
more, so that a row can be set back by as many tokens. onnxruntime's CausalConvWithState does the sums of one
row too, but takes no rows of different lengths, and twenty times as long for a prompt.
"""

import numpy as np
import onnx_ir as ir

from sardonyx.export.onnx_builder import OnnxBuilder
from sardonyx.models.graph import StateSpec

SPARE = 32
"""Tokens that a row can be set back by: more than any guess at what follows is long."""


def convolve(g: OnnxBuilder, x: ir.Value, weights: ir.Value, bias: ir.Value | None) -> ir.Value:
    """`x` is `[rows, tokens, features]`, `weights` `[features, taps]`, the last tap for the token itself."""
    assert weights.shape is not None
    features, taps = weights.shape.numpy()
    seen = _seen(g, x, features, taps)
    total: ir.Value | None = None
    for tap, factors in enumerate(_columns(g, weights, taps)):
        last = None if tap == taps - 1 else tap - (taps - 1)
        shifted = seen if taps == 1 else _cut(g, seen, tap, last)
        weighted = g.op("Mul", shifted, factors)
        total = weighted if total is None else g.op("Add", total, weighted)
    assert total is not None
    return total if bias is None else g.op("Add", total, bias)


def _seen(g: OnnxBuilder, x: ir.Value, features: int, taps: int) -> ir.Value:
    """All that is looked at, `[rows, taps - 1 + tokens, features]`; what would lie before the start is zero.

    Only the first node reads the state: the present is written over the past, and by then nobody needs it.
    """
    if taps == 1:
        return x
    length = taps - 1 + SPARE
    layer = sum(spec.kind == "window" for spec, _, _ in g.states)
    spec = StateSpec(f"{layer}.conv", "window", (length, features))
    past, present = g.state(spec, g.float)
    strip = g.op("Concat", past, x, axis=1)
    kept = g.op("GatherND", strip, _newest(g, length), batch_dims=1)
    g.output(kept, present, g.float, ["rows", length, features])
    before = g.op("Where", _begun(g, taps), _cut(g, strip, SPARE, length), g.number(0))
    return g.op("Concat", before, x, axis=1)


def _newest(g: OnnxBuilder, length: int) -> ir.Value:
    """`[rows, length, 1]`: where in past and new ones the last positions lie that are not padding."""

    def make() -> ir.Value:
        counts = g.input("query_seqlens", ir.DataType.INT32, ["rows"])
        starts = g.reshaped(g.op("Cast", counts, to=ir.DataType.INT64), -1, 1, 1)
        return g.op("Add", starts, g.constant(np.arange(length, dtype=np.int64)[:, None]))

    return g.once(("newest", length), make)


def _begun(g: OnnxBuilder, taps: int) -> ir.Value:
    """`[rows, taps - 1, 1]`: which of the positions before the new ones there are."""

    def make() -> ir.Value:
        last = g.input("seqlens_k", ir.DataType.INT32, ["rows"])
        counts = g.input("query_seqlens", ir.DataType.INT32, ["rows"])
        past = g.reshaped(g.op("Sub", last, counts), -1, 1, 1)  # cached, less one
        return g.op(
            "GreaterOrEqual", past, g.constant(np.arange(taps - 1, dtype=np.int32)[::-1, None].copy())
        )

    return g.once(("begun", taps), make)


def _columns(g: OnnxBuilder, weights: ir.Value, taps: int) -> list[ir.Value]:
    """The factors of each tap, `[features]`. onnxruntime folds this away while it loads."""
    rows = g.op("Transpose", weights, perm=[1, 0])
    return [g.op("Gather", rows, g.constant(np.array(tap, np.int64)), axis=0) for tap in range(taps)]


def _cut(g: OnnxBuilder, strip: ir.Value, start: int, stop: int | None) -> ir.Value:
    end = np.iinfo(np.int64).max if stop is None else stop
    return g.op("Slice", strip, g.integers(start), g.integers(end), g.integers(1))
