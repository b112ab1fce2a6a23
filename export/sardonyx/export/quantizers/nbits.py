"""Blocks of 32 or more weights with a scale and a zero point each: com.microsoft MatMulNBits.

`w = scale * (q - zero_point)` with unsigned q of 4 or 8 bits. accuracy_level 4 lets the kernel quantize
activations to int8 block by block; without it 4-bit runs at half the speed and 8-bit at a fiftieth.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sardonyx.export.checkpoint import Float32
from sardonyx.export.onnx_builder import MICROSOFT, OnnxBuilder
from sardonyx.export.quantizers import SMALLEST_SCALE
from sardonyx.export.weights import Matrix

UInt8 = NDArray[np.uint8]

ACCURACY_LEVEL = 4


@dataclass(frozen=True)
class Packed:
    """The three tensors of one quantized matrix, as the kernel reads them."""

    codes: UInt8  # [outputs, blocks, block * bits / 8], low nibble first
    scales: Float32  # [outputs, blocks]
    zero_points: UInt8  # [outputs, ceil(blocks * bits / 8)], low nibble first


@dataclass(frozen=True)
class NBits:
    """Asymmetric blocks of `block` weights in `bits` bits, by rounding to nearest."""

    bits: int
    block: int = 32

    def __post_init__(self) -> None:
        if self.bits not in (4, 8) or self.block not in (16, 32, 64, 128, 256):
            raise ValueError(
                f"bits={self.bits}, block={self.block}: bits are 4 or 8, blocks 16, 32, 64, 128 or 256"
            )

    def __str__(self) -> str:
        return f"int{self.bits}/{self.block}"

    def linear(self, g: OnnxBuilder, x: ir.Value, weight: Matrix, bias: ir.Value | None) -> ir.Value:
        outputs, inputs = weight.shape
        return g.op(
            "MatMulNBits",
            x,
            *self.store(g, weight),
            None,
            bias,
            domain=MICROSOFT,
            K=inputs,
            N=outputs,
            bits=self.bits,
            block_size=self.block,
            accuracy_level=ACCURACY_LEVEL,
        )

    def embed(self, g: OnnxBuilder, ids: ir.Value, table: Matrix) -> ir.Value:
        codes, scales, zero_points = self.store(g, table)
        outputs, inputs = table.shape
        flat = g.alias(codes, f"{table.name}.rows", (outputs, self._blocks(inputs) * self._blob))
        padded = g.op(
            "GatherBlockQuantized",
            flat,
            ids,
            scales,
            zero_points,
            domain=MICROSOFT,
            bits=self.bits,
            block_size=self.block,
            gather_axis=0,
            quantize_axis=1,
        )
        if inputs % self.block == 0:
            return padded
        start, stop, axis = (g.constant(np.array([at], np.int64)) for at in (0, inputs, -1))
        return g.op("Slice", padded, start, stop, axis)

    def dequantized(self, rows: Float32) -> Float32:
        codes, scales, zero_points = self._quantized(rows)
        values = (codes.astype(np.float32) - zero_points[..., None]) * scales[..., None]
        return values.reshape(len(rows), -1)[:, : rows.shape[1]]

    def rounding(self, x: Float32) -> Float32:
        starts = np.arange(0, x.shape[-1], self.block)
        largest: Float32 = np.maximum.reduceat(np.abs(x), starts, axis=-1)  # [..., blocks]
        half_steps = largest / np.float32(254)
        return half_steps.repeat(self.block, axis=-1)[..., : x.shape[-1]]

    def _blocks(self, inputs: int) -> int:
        return -(-inputs // self.block)

    @property
    def _blob(self) -> int:
        return self.block * self.bits // 8

    def _quantized(self, rows: Float32) -> tuple[UInt8, Float32, UInt8]:
        """Codes `[some, blocks, block]`, scales and zero points `[some, blocks]`, all unpacked."""
        outputs, inputs = rows.shape
        blocks = self._blocks(inputs)
        padded = np.pad(rows, ((0, 0), (0, blocks * self.block - inputs))).reshape(
            outputs, blocks, self.block
        )
        low, high = np.minimum(padded.min(-1), 0), np.maximum(padded.max(-1), 0)  # [outputs, blocks]
        top = np.float32(2**self.bits - 1)
        scales = high / top - low / top  # each by itself: their difference may overflow
        scales[scales < SMALLEST_SCALE] = 0
        inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
        zero_points = np.clip(np.rint(-low * inverse), 0, top)
        codes = np.clip(np.rint(padded * inverse[..., None]) + zero_points[..., None], 0, top)
        return codes.astype(np.uint8), scales, zero_points.astype(np.uint8)

    def _packed(self, rows: Float32) -> Packed:
        codes, scales, zero_points = self._quantized(rows)
        if self.bits == 4:
            even = np.pad(zero_points, ((0, 0), (0, zero_points.shape[1] % 2)))
            codes, zero_points = _nibbles(codes), _nibbles(even)
        return Packed(codes, scales, zero_points)

    def store(self, g: OnnxBuilder, weight: Matrix) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Codes, scales and zero points as initializers, shaped as `Packed` says."""
        outputs, inputs = weight.shape
        blocks = self._blocks(inputs)
        scales: list[Float32] = []  # filled while the codes stream by: a hundredth of their size
        zero_points: list[UInt8] = []

        def codes() -> Iterator[UInt8]:
            for rows in weight.chunks():
                packed = self._packed(rows)
                scales.append(packed.scales)
                zero_points.append(packed.zero_points)
                yield packed.codes

        stem = weight.name.removesuffix(".weight")
        return (
            g.stored(f"{stem}.codes", ir.DataType.UINT8, (outputs, blocks, self._blob), codes),
            g.stored(f"{stem}.scales", ir.DataType.FLOAT, (outputs, blocks), lambda: scales),
            g.stored(
                f"{stem}.zero_points",
                ir.DataType.UINT8,
                (outputs, -(-blocks * self.bits // 8)),
                lambda: zero_points,
            ),
        )


EXAMPLES = (NBits(4), NBits(8), NBits(4, block=128))


def _nibbles(values: UInt8) -> UInt8:
    """Two 4-bit values to a byte along the last axis, the first in the low half."""
    return values[..., 0::2] | values[..., 1::2] << np.uint8(4)
