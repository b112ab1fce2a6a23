"""How a graph is asked: which inputs say where tokens stand and whose logits are wanted.

This project's own way is lengths, and any rows of logits. Graphs of plain operators are asked as other
programs ask theirs: with an attention mask, positions, and logits of a row's last tokens.
"""

from typing import ClassVar, Protocol

import numpy as np
import onnx_ir as ir

from sardonyx.export.onnx_builder import OnnxBuilder

LAST = np.iinfo(np.int64).max


class Ports(Protocol):
    """A way of asking."""

    masked: ClassVar[bool]
    """Whether it is with an attention mask, and states grow instead of being written in place."""

    def places(self, g: OnnxBuilder, limit: int) -> ir.Value:
        """`[rows, tokens]`: where in its row each new token stands, below `limit`."""

    def select(self, g: OnnxBuilder, x: ir.Value, hidden: int) -> ir.Value:
        """Of `[rows, tokens, hidden]` what logits are wanted of, `[wanted, hidden]`."""

    def put_out(self, g: OnnxBuilder, value: ir.Value, name: str, width: int) -> None:
        """Make float32 `[wanted, width]` an output."""


class Lengths:
    """`seqlens_k` and `query_seqlens` as the attention kernel has them, and `logit_rows`."""

    masked: ClassVar = False

    def places(self, g: OnnxBuilder, limit: int) -> ir.Value:
        """Padding, which may stand beyond the limit, counts as the last position."""
        last = g.input("seqlens_k", ir.DataType.INT32, ["rows"])
        counts = g.input("query_seqlens", ir.DataType.INT32, ["rows"])
        zero, one = (g.constant(np.array(i, np.int32)) for i in (0, 1))
        first = g.op("Add", g.op("Sub", last, counts), one)
        width = g.op("Squeeze", g.op("Shape", ids(g), start=1, end=2))
        steps = g.op("Range", zero, g.op("Cast", width, to=ir.DataType.INT32), one)
        column = g.op("Unsqueeze", first, g.constant(np.array([1], np.int64)))
        return g.op("Min", g.op("Add", column, steps), g.constant(np.array(limit - 1, np.int32)))

    def select(self, g: OnnxBuilder, x: ir.Value, hidden: int) -> ir.Value:
        rows = g.input("logit_rows", ir.DataType.INT64, ["wanted"])
        flat = g.reshaped(x, -1, hidden)
        return g.op("Gather", flat, rows, axis=0)

    def put_out(self, g: OnnxBuilder, value: ir.Value, name: str, width: int) -> None:
        g.output(value, name, ir.DataType.FLOAT, ["wanted", width])


class Mask:
    """`attention_mask`, `position_ids` and `num_logits_to_keep`, by the names that transformers gave them."""

    masked: ClassVar = True

    def places(self, g: OnnxBuilder, limit: int) -> ir.Value:
        return g.input("position_ids", ir.DataType.INT64, ["rows", "tokens"])

    def select(self, g: OnnxBuilder, x: ir.Value, hidden: int) -> ir.Value:
        kept = g.input("num_logits_to_keep", ir.DataType.INT64, [])
        start = g.op("Unsqueeze", g.op("Neg", kept), g.constant(np.array([0])))
        last = g.op("Slice", x, start, g.constant(np.array([LAST])), g.constant(np.array([1])))
        return g.reshaped(last, -1, hidden)

    def put_out(self, g: OnnxBuilder, value: ir.Value, name: str, width: int) -> None:
        rows = g.op("Shape", ids(g), start=0, end=1)
        shape = g.op("Concat", rows, g.constant(np.array([-1, width], np.int64)), axis=0)
        g.output(g.op("Reshape", value, shape), name, ir.DataType.FLOAT, ["rows", "kept", width])


def ids(g: OnnxBuilder) -> ir.Value:
    """The new tokens."""
    return g.input("input_ids", ir.DataType.INT64, ["rows", "tokens"])


def attention_mask(g: OnnxBuilder) -> ir.Value:
    """`[rows, total]`: which cached and new positions there are."""
    return g.input("attention_mask", ir.DataType.INT64, ["rows", "total"])


LENGTHS, MASK = Lengths(), Mask()
