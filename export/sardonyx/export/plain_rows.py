"""Rows of a table in blocks of few bits, widened in plain ONNX operators."""

import numpy as np
import onnx_ir as ir

from sardonyx.export.onnx_builder import OnnxBuilder

Stored = tuple[ir.Value, ir.Value, ir.Value | None]


def plain_rows(g: OnnxBuilder, ids: ir.Value, stored: Stored, bits: int, blocks: int) -> ir.Value:
    """`scale * (code - zero_point)` of the rows `ids`, `[rows, tokens, blocks * block]`.

    `stored` are codes `[table, bytes]`, scales `[table, blocks]`, and zero points `[table, bytes]` or None
    for the middle. Two codes of 4 bits share a byte, the first in its low half.
    """
    codes, scales, zero_points = stored
    numbers = _numbers(g, g.op("Gather", codes, ids, axis=0), bits)
    apart = g.reshaped(numbers, 0, 0, blocks, -1)
    if zero_points is None:
        middles = g.number(2 ** (bits - 1))
    else:
        wide = _numbers(g, g.op("Gather", zero_points, ids, axis=0), bits)
        kept = (g.constant(np.array([at], np.int64)) for at in (0, blocks, -1))
        middles = _column(g, g.op("Slice", wide, *kept))
    sizes = _column(g, g.op("Gather", scales, ids, axis=0))
    return g.reshaped(g.op("Mul", g.op("Sub", apart, middles), sizes), 0, 0, -1)


def _numbers(g: OnnxBuilder, codes: ir.Value, bits: int) -> ir.Value:
    """Codes as floats, `[rows, tokens, codes]`."""
    bytes_ = g.op("Cast", codes, to=g.float)
    if bits == 8:
        return bytes_
    high = g.op("Floor", g.op("Mul", bytes_, g.number(1 / 16)))
    low = g.op("Sub", bytes_, g.op("Mul", high, g.number(16)))
    return g.reshaped(g.op("Concat", _column(g, low), _column(g, high), axis=-1), 0, 0, -1)


def _column(g: OnnxBuilder, x: ir.Value) -> ir.Value:
    return g.op("Unsqueeze", x, g.constant(np.array([-1], np.int64)))
