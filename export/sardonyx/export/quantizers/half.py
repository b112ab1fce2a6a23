"""Weights as halves, float16 or bfloat16: widened when the model loads, and multiplied as float32.

For matrices that a mixed file leaves unquantized. The numbers are those of the source, and so is their size
in the file; memory and speed are those of float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sardonyx.export.checkpoint import Float32
from sardonyx.export.onnx_builder import OnnxBuilder
from sardonyx.export.weights import Matrix, Moment

HALVES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}


@dataclass(frozen=True)
class Half:
    """Stored as `kind`, `[outputs, inputs]`."""

    calibrated: ClassVar = False

    kind: str

    def __str__(self) -> str:
        return self.kind

    def linear(self, g: OnnxBuilder, x: ir.Value, weight: Matrix, bias: ir.Value | None) -> ir.Value:
        wide = g.op("Cast", self._stored(g, weight), to=ir.DataType.FLOAT)
        product = g.op("MatMul", x, g.op("Transpose", wide, perm=[1, 0]))
        return product if bias is None else g.op("Add", product, bias)

    def embed(self, g: OnnxBuilder, ids: ir.Value, table: Matrix) -> ir.Value:
        return g.op("Cast", g.op("Gather", self._stored(g, table), ids, axis=0), to=ir.DataType.FLOAT)

    def dequantized(self, rows: Float32, moment: Moment | None = None) -> Float32:
        return self._narrow(rows).astype(np.float32)

    def rounding(self, x: Float32) -> Float32:
        return np.zeros_like(x)

    def _stored(self, g: OnnxBuilder, weight: Matrix) -> ir.Value:
        def chunks() -> Iterator[NDArray[Any]]:
            return (self._narrow(rows).view(np.uint16) for rows in weight.chunks())  # a file takes any bytes

        return g.stored(weight.name, HALVES[self.kind], weight.shape, chunks)

    def _narrow(self, rows: Float32) -> NDArray[Any]:
        return rows.astype(HALVES[self.kind].numpy())


EXAMPLES = (Half("bfloat16"),)
"""Of the two the one that takes any float32 without becoming infinite."""
