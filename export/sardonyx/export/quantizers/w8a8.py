"""8-bit weights and 8-bit activations: one scale for each output channel and one for each token.

The fastest way to multiply many tokens at once on CPUs with VNNI. Activations become unsigned bytes around
128 because the kernels for unsigned times signed are an order of magnitude faster than signed times signed.
One scale for each token, not for the whole tensor, is what keeps the quality: a loud token no longer drowns
the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sardonyx.export.checkpoint import Float32
from sardonyx.export.onnx_builder import MICROSOFT, OnnxBuilder
from sardonyx.export.quantizers import SMALLEST_SCALE
from sardonyx.export.weights import Matrix, Moment

SMALLEST = np.float32(1e-20)
"""Least token maximum: keeps an all-zero token from dividing by zero."""


@dataclass(frozen=True)
class W8A8:
    """Symmetric int8 weights, dynamic uint8 activations. For linear layers only, not for embedding tables."""

    calibrated: ClassVar = False

    def __str__(self) -> str:
        return "w8a8"

    def linear(self, g: OnnxBuilder, x: ir.Value, weight: Matrix, bias: ir.Value | None) -> ir.Value:
        outputs, inputs = weight.shape
        stem = weight.name.removesuffix(".weight")
        scales: list[Float32] = []
        codes = g.stored(
            f"{stem}.codes", ir.DataType.INT8, (inputs, outputs), lambda: _transposed(weight, scales)
        )
        channel_scales = g.stored(f"{stem}.scales", ir.DataType.FLOAT, (outputs,), lambda: scales)
        quantized, token_scale = g.once((x, "w8a8"), lambda: _quantized(g, x))
        zero_point = g.constant(np.array(128, np.uint8))
        product = g.op(
            "MatMulIntegerToFloat",
            quantized,
            codes,
            g.constant(np.array(1 / 127, np.float32)),
            channel_scales,
            zero_point,
            domain=MICROSOFT,
        )
        scaled = g.op("Mul", product, token_scale)
        return scaled if bias is None else g.op("Add", scaled, bias)

    def embed(self, g: OnnxBuilder, ids: ir.Value, table: Matrix) -> ir.Value:
        raise NotImplementedError("w8a8 multiplies activations; store tables with another quantizer")

    def dequantized(self, rows: Float32, moment: Moment | None = None) -> Float32:
        codes, scales = _codes(rows)
        return codes * scales[:, None]

    def rounding(self, x: Float32) -> Float32:
        half_step: Float32 = np.abs(x).max(-1, keepdims=True) / np.float32(254)
        return np.broadcast_to(half_step, x.shape)


EXAMPLES = (W8A8(),)


def _quantized(g: OnnxBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Activations as uint8 around 128, and each token's largest magnitude `[..., 1]`: 127 steps."""
    last = g.constant(np.array([-1], np.int64))
    largest = g.op("ReduceMax", g.op("Abs", x), last, keepdims=1)
    scale = g.op("Max", largest, g.constant(np.array(SMALLEST)))
    steps = g.constant(np.array(1 / 127, np.float32))
    codes = g.op("QuantizeLinear", g.op("Div", x, scale), steps, g.constant(np.array(128, np.uint8)))
    return codes, scale


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
