"""Weights as they are: float32, the reference."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from sardonyx.export.checkpoint import Float32
from sardonyx.export.onnx_builder import OnnxBuilder
from sardonyx.export.weights import Matrix, Moment

COLUMN_ELEMENTS = 1 << 25
"""Elements that are transposed at a time (128 MiB): a vocabulary's head is read several times over."""


@dataclass(frozen=True)
class Float:
    """No quantization. Tables are stored as `[outputs, inputs]`, other weights transposed for MatMul."""

    calibrated: ClassVar = False

    def __str__(self) -> str:
        return "float32"

    def linear(self, g: OnnxBuilder, x: ir.Value, weight: Matrix, bias: ir.Value | None) -> ir.Value:
        if g.is_stored(weight.name):  # the head of a tied model reads the embedding table the other way
            return g.op("Gemm", x, self._table(g, weight), bias, transB=1)
        outputs, inputs = weight.shape
        name = weight.name.removesuffix(".weight") + ".weight_transposed"
        stored = g.stored(name, g.float, (inputs, outputs), lambda: _transposed(weight))
        product = g.op("MatMul", x, stored)
        return product if bias is None else g.op("Add", product, bias)

    def embed(self, g: OnnxBuilder, ids: ir.Value, table: Matrix) -> ir.Value:
        return g.op("Gather", self._table(g, table), ids, axis=0)

    def dequantized(self, rows: Float32, moment: Moment | None = None) -> Float32:
        return rows

    def rounding(self, x: Float32) -> Float32:
        return np.zeros_like(x)

    def _table(self, g: OnnxBuilder, table: Matrix) -> ir.Value:
        return g.stored(table.name, g.float, table.shape, table.chunks)


EXAMPLES = (Float(),)


def _transposed(weight: Matrix) -> Iterator[Float32]:
    outputs, inputs = weight.shape
    step = max(1, COLUMN_ELEMENTS // outputs)
    for first in range(0, inputs, step):
        columns = np.empty((min(step, inputs - first), outputs), np.float32)
        start = 0
        for chunk in weight.chunks(slice(first, first + step)):
            columns[:, start : start + len(chunk)] = chunk.T
            start += len(chunk)
        yield columns
