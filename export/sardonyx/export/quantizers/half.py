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
from sardonyx.runtime.errors import SourceError

HALVES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}


@dataclass(frozen=True)
class Half:
    """Stored as `kind`, `[outputs, inputs]`."""

    calibrated: ClassVar = False

    kind: str

    def __str__(self) -> str:
        return self.kind

    def linear(self, g: OnnxBuilder, x: ir.Value, weight: Matrix, bias: ir.Value | None) -> ir.Value:
        product = g.op("MatMul", x, g.op("Transpose", self._wide(g, self._stored(g, weight)), perm=[1, 0]))
        return product if bias is None else g.op("Add", product, bias)

    def embed(self, g: OnnxBuilder, ids: ir.Value, table: Matrix) -> ir.Value:
        return self._wide(g, g.op("Gather", self._stored(g, table), ids, axis=0))

    def dequantized(self, rows: Float32, moment: Moment | None = None) -> Float32:
        return self._narrow(rows).astype(np.float32)

    def rounding(self, x: Float32) -> Float32:
        return np.zeros_like(x)

    def _stored(self, g: OnnxBuilder, weight: Matrix) -> ir.Value:
        def chunks() -> Iterator[NDArray[Any]]:
            return (self._narrow(rows).view(np.uint16) for rows in weight.chunks())  # a file takes any bytes

        return g.stored(weight.name, HALVES[self.kind], weight.shape, chunks)

    def _wide(self, g: OnnxBuilder, x: ir.Value) -> ir.Value:
        return x if HALVES[self.kind] == g.float else g.op("Cast", x, to=g.float)

    def _narrow(self, rows: Float32) -> NDArray[Any]:
        """Raises SourceError for a number that is too large."""
        with np.errstate(over="ignore"):
            narrow: NDArray[Any] = rows.astype(HALVES[self.kind].numpy())
        if not np.isfinite(narrow.astype(np.float32)).all():
            raise SourceError(f"a weight of {np.abs(rows).max():g} is too large for {self.kind}; take fp32")
        return narrow


EXAMPLES = (Half("bfloat16"),)
"""Of the two the one that takes any float32 without becoming infinite."""
