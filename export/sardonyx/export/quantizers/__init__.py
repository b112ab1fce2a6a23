"""How weights are stored and multiplied. One quantizer per file; its dataclass fields are its options.

A quantizer answers for both sides: the nodes and tensors it writes (`linear`, `embed`), and what those
tensors mean (`dequantized`), so that a test can hold one against the other. It knows neither architecture nor
recipe. Beside it in its file stand `EXAMPLES`, the ones that are tested.
"""

from typing import Protocol, runtime_checkable

import numpy as np
import onnx_ir as ir

from sardonyx.export.checkpoint import Float32
from sardonyx.export.onnx_builder import OnnxBuilder
from sardonyx.export.weights import Matrix, Moment

SMALLEST_SCALE = np.finfo(np.float32).smallest_normal
"""Scales below it have no reciprocal in float32: the weights under them become zero."""


class Quantizer(Protocol):
    """`str()` of a quantizer is its short name in manifests and tables, such as `int4/32`."""

    def linear(self, g: OnnxBuilder, x: ir.Value, weight: Matrix, bias: ir.Value | None) -> ir.Value:
        """`x W^T + bias`: `[..., inputs]` to `[..., outputs]`."""

    def embed(self, g: OnnxBuilder, ids: ir.Value, table: Matrix) -> ir.Value:
        """Rows of the table, `[...]` to `[..., inputs]`, read from the bytes that `linear` stores."""

    @property
    def calibrated(self) -> bool:
        """Whether it makes use of what a matrix was seen to multiply."""

    def dequantized(self, rows: Float32, moment: Moment | None = None) -> Float32:
        """What is left of these rows (`[some, inputs]`) after storing them, given the moment of what they
        multiply.
        """

    def rounding(self, x: Float32) -> Float32:
        """How far the kernel may round each of these activations, `[..., inputs]`: zeros if it does not."""


@runtime_checkable
class Choosing(Protocol):
    """A quantizer that looks at a matrix, and at a sample of what it multiplies, before it is written."""

    def chosen(self, matrix: Matrix) -> tuple[Quantizer, Float32 | None]:
        """What to write this matrix with, and by what to divide each input first, `[inputs]`, if by anything:
        the matrix is multiplied by it instead.
        """
