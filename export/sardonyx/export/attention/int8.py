"""Keys and values in 8 bits made float32 again, so that several tokens attend to them at once.

The kernel for such a cache takes a prompt token by token. The one for float32 is two to three times as fast
at it, and what it is given costs little to make: the whole numbers that are stored, of one layer at a time,
while queries and outputs are multiplied by what a step is worth. New keys and values are rounded before any
token attends to them: a token sees the same numbers of another, whether that came with it or was cached. It
knows arithmetic, and no kernel of attention.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sardonyx.export.onnx_builder import MICROSOFT, OnnxBuilder


class Tables(NamedTuple):
    """Cosines and sines of rotary positions, `[context, pairs]`, if there are any; and how many channels they
    turn, 0 for all.
    """

    cosines: ir.Value | None = None
    sines: ir.Value | None = None
    channels: int = 0


class Places(NamedTuple):
    """Where a pass writes, the same for all layers."""

    single: ir.Value  # bool: each row gets one token
    past: ir.Value  # [rows], positions that are cached before this pass
    positions: ir.Value  # [rows, tokens], within the context
    end: ir.Value  # [1], positions of the longest row after this pass, padding too: the kernel wants room


def places_of(g: OnnxBuilder) -> Places:
    """Made once for a graph."""
    return g.once("places", lambda: _places(g))


def _places(g: OnnxBuilder) -> Places:
    last = g.input("seqlens_k", ir.DataType.INT32, ["rows"])
    counts = g.input("query_seqlens", ir.DataType.INT32, ["rows"])
    ids = g.input("input_ids", ir.DataType.INT64, ["rows", "tokens"])
    zero, one, most = (g.constant(np.array(number, np.int64)) for number in (0, 1, g.context - 1))
    tokens = g.op("Gather", g.op("Shape", ids), one)
    past = g.op("Add", g.op("Cast", g.op("Sub", last, counts), to=ir.DataType.INT64), one)
    column = g.reshaped(past, -1, 1)
    positions = g.op("Add", column, g.op("Range", zero, tokens, one))
    return Places(
        g.op("Equal", tokens, one),
        past,
        g.op("Min", positions, most),  # padding may lie beyond
        g.op("Add", g.op("ReduceMax", past, keepdims=1), tokens),
    )


def rotated(g: OnnxBuilder, x: ir.Value, tables: Tables, heads: int) -> ir.Value:
    """Queries or keys `[rows, tokens, heads * width]` turned by the angles of their positions."""
    if tables.cosines is None:
        return x
    return g.op(
        "RotaryEmbedding",
        x,
        places_of(g).positions,
        tables.cosines,
        tables.sines,
        domain=MICROSOFT,
        num_heads=heads,
        rotary_embedding_dim=tables.channels,
    )


@dataclass(frozen=True)
class Cached:
    """Keys or values of a layer: what is stored of them, and what a step of each channel is worth."""

    past: ir.Value  # [rows, heads, capacity, width], int8
    step: ir.Value  # [1, heads, 1, width]

    def in_steps(self, g: OnnxBuilder) -> ir.Value:
        """What is stored as float32, as far as any row goes: `[rows, heads, positions, width]`."""
        start, axis = (g.constant(np.array([number], np.int64)) for number in (0, 2))
        reached = g.op("Slice", self.past, start, places_of(g).end, axis)
        return g.op("Cast", reached, to=ir.DataType.FLOAT)

    def rounded(self, g: OnnxBuilder, new: ir.Value) -> tuple[ir.Value, ir.Value]:
        """New keys or values `[rows, tokens, heads * width]` in whole steps: as float32, and the states with
        them written behind what is cached.
        """
        _, heads, _, width = self._worth.shape
        least, most = (g.constant(np.array(number, np.float32)) for number in (-127, 127))
        whole = g.op("Clip", g.op("Round", g.op("Div", new, self.worth(g))), least, most)
        split = g.constant(np.array([0, 0, heads, width], np.int64))
        by_head = g.op("Reshape", g.op("Cast", whole, to=ir.DataType.INT8), split)
        by_head = g.op("Transpose", by_head, perm=[0, 2, 1, 3])
        return whole, g.op("TensorScatter", self.past, by_head, places_of(g).past, axis=2)

    def worth(self, g: OnnxBuilder, queries: int = 1) -> ir.Value:
        """What a step is worth to each query head, so many of a head: `[heads * queries * width]`."""
        return g.constant(np.repeat(self._worth[0, :, 0], queries, axis=0).reshape(-1))

    @property
    def _worth(self) -> NDArray[np.float32]:
        assert self.step.const_value is not None
        worth: NDArray[np.float32] = self.step.const_value.numpy()
        return worth
