"""8-bit weights and 8-bit activations: a scale for each output channel, and one for all tokens or each.

The fastest way to multiply many tokens at once on CPUs with VNNI. Activations become unsigned bytes around
128 because the kernels for unsigned times signed are an order of magnitude faster than signed times signed.

One scale for all tokens is known before they come, and costs one node. It is good enough where inputs were
seen and made alike (`smoothing`), unless some token is many times as loud as all others. Else each token gets
a scale of its own when it comes, by five nodes: a loud one does not drown the others. Either way a token's
numbers do not depend on its company.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sardonyx.export.checkpoint import Float32
from sardonyx.export.onnx_builder import MICROSOFT, OnnxBuilder
from sardonyx.export.quantizers import SMALLEST_SCALE, Quantizer
from sardonyx.export.smoothing import smoothed
from sardonyx.export.weights import Matrix, Moment, unseen

PIECE = 1 << 20
"""Elements of a matrix that are looked at together."""

TOLERATED = 0.0025
"""Squared error of products with one step for all tokens that is not worth the nodes of a step for each."""


@dataclass(frozen=True)
class W8A8:
    """Symmetric int8 weights, uint8 activations. For linear layers only, not for embedding tables."""

    step: float | None = None
    """What one step of the activations is worth; None finds it for each token."""
    calibrated: ClassVar = False

    def __str__(self) -> str:
        return "w8a8" if self.step is None else "w8a8 static"

    def chosen(self, matrix: Matrix) -> tuple[Quantizer, Float32 | None]:
        """One step for all tokens unless that does harm."""
        sample = matrix.sample
        if sample is None:
            return self, None
        silent = replace(matrix, on_read=unseen)  # who counts what is read counts it where it is written
        found = smoothed(sample, lambda: silent.chunks(elements=PIECE), self.dequantized)
        if found.error > max(TOLERATED, found.error_per_token):
            return self, None
        return W8A8(found.step), found.factors

    def linear(self, g: OnnxBuilder, x: ir.Value, weight: Matrix, bias: ir.Value | None) -> ir.Value:
        outputs, inputs = weight.shape
        stem = weight.name.removesuffix(".weight")
        scales: list[Float32] = []
        codes = g.stored(
            f"{stem}.codes", ir.DataType.INT8, (inputs, outputs), lambda: _transposed(weight, scales)
        )
        channel_scales = g.stored(f"{stem}.scales", ir.DataType.FLOAT, (outputs,), lambda: scales)
        step = g.constant(np.array(1 / 127 if self.step is None else self.step, np.float32))
        zero_point = g.constant(np.array(128, np.uint8))

        def product(x: ir.Value, bias: ir.Value | None) -> ir.Value:
            quantized = g.once((x, step), lambda: g.op("QuantizeLinear", x, step, zero_point))
            inputs = (quantized, codes, step, channel_scales, zero_point)
            added = () if bias is None else (None, bias)
            return g.op("MatMulIntegerToFloat", *inputs, *added, domain=MICROSOFT)

        if self.step is not None:
            return product(x, bias)
        shares, largest = g.once((x, "shares"), lambda: _shares(g, x))
        scaled = g.op("Mul", product(shares, None), largest)
        return scaled if bias is None else g.op("Add", scaled, bias)

    def embed(self, g: OnnxBuilder, ids: ir.Value, table: Matrix) -> ir.Value:
        raise NotImplementedError("w8a8 multiplies activations; store tables with another quantizer")

    def dequantized(self, rows: Float32, moment: Moment | None = None) -> Float32:
        codes, scales = _codes(rows)
        return codes * scales[:, None]

    def rounding(self, x: Float32) -> Float32:
        size = np.abs(x)
        if self.step is not None:
            step = np.float32(self.step)
            return np.maximum(step / 2, size - 127 * step)
        half_step: Float32 = size.max(-1, keepdims=True) / np.float32(254)
        return np.broadcast_to(half_step, x.shape)


EXAMPLES = (W8A8(), W8A8(step=0.02))


def _shares(g: OnnxBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Activations as shares of their token's largest magnitude, and that, `[..., 1]`.

    Zeros have no shares: NaN. But codes are whole numbers whatever they are made of, and times zero are zero.
    """
    last = g.constant(np.array([-1], np.int64))
    largest = g.op("ReduceMax", g.op("Abs", x), last, keepdims=1)
    return g.op("Div", x, largest), largest


def _codes(rows: Float32) -> tuple[NDArray[np.int8], Float32]:
    """int8 codes `[some, inputs]` and one scale for each row."""
    scales = np.abs(rows).max(-1) / np.float32(127)
    scales[scales < SMALLEST_SCALE] = 0
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    return np.rint(rows * inverse[:, None]).astype(np.int8), scales


def _transposed(weight: Matrix, scales: list[Float32]) -> Iterator[NDArray[np.int8]]:
    """The codes as the kernel reads them, `[inputs, outputs]`; each channel's scale goes to `scales`."""
    outputs, inputs = weight.shape
    whole = np.empty((inputs, outputs), np.int8)
    start = 0
    for rows in weight.chunks():
        codes, rows_scales = _codes(rows)
        scales.append(rows_scales)
        whole[:, start : start + len(rows)] = codes.T
        start += len(rows)
    yield whole
