"""Where in its sequence each new token stands, from the lengths that every pass is given."""

import numpy as np
import onnx_ir as ir

from sardonyx.export.onnx_builder import OnnxBuilder


def positions(g: OnnxBuilder, ids: ir.Value, limit: int) -> ir.Value:
    """`[rows, tokens]`, below `limit`: padding, which may stand beyond it, counts as the last position."""
    last = g.input("seqlens_k", ir.DataType.INT32, ["rows"])
    counts = g.input("query_seqlens", ir.DataType.INT32, ["rows"])
    zero, one = (g.constant(np.array(i, np.int32)) for i in (0, 1))
    first = g.op("Add", g.op("Sub", last, counts), one)
    width = g.op("Squeeze", g.op("Shape", ids, start=1, end=2))
    steps = g.op("Range", zero, g.op("Cast", width, to=ir.DataType.INT32), one)
    column = g.op("Unsqueeze", first, g.constant(np.array([1], np.int64)))
    return g.op("Min", g.op("Add", column, steps), g.constant(np.array(limit - 1, np.int32)))
