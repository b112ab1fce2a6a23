"""Blocks of 32 or more weights with a scale each, and at 4 bits a zero point: com.microsoft MatMulNBits.

`w = scale * (code - zero_point)` with unsigned codes of 4 or 8 bits. accuracy_level 4 lets the kernel
quantize activations to int8 block by block; without it 4-bit runs at half the speed and 8-bit at a fiftieth.

The file keeps a byte for each scale: which share it is of its row's size, a float. Nodes that read nothing
else make scales of these. onnxruntime folds them while it loads, so that no step pays for them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import onnx_ir as ir

from sardonyx.export.checkpoint import Float32
from sardonyx.export.onnx_builder import MICROSOFT, OnnxBuilder
from sardonyx.export.parallel import in_parallel
from sardonyx.export.plain_rows import plain_rows
from sardonyx.export.rounded_before import RoundedBefore
from sardonyx.export.rounding import COVERING, SEARCHED, SHARES, Blocks, UInt8, nearest, rounded
from sardonyx.export.rounding_cost import costs
from sardonyx.export.weights import Matrix, Moment

ACCURACY_LEVEL = 4

BLOCKS = (16, 32, 64, 128, 256)
"""Weights to a scale that the kernel takes."""

PIECE = 1 << 20
"""Elements that are rounded at a time: enough rows that numpy is busy, few enough for a cache."""


@dataclass(frozen=True)
class NBits:
    """Blocks of `block` weights in `bits` bits.

    At 8 bits every weight goes to the nearest code. At 4 that costs a small model a third of its perplexity:
    there `rounding` chooses scales, zero points and codes for the least error in what comes out, as far as
    inputs were measured.
    """

    bits: int
    block: int = 32
    to_nearest: bool = False
    """At 4 bits, too: what most exporters do, to compare with."""
    before: RoundedBefore | None = field(default=None, compare=False, repr=False)
    """Where 4-bit roundings are looked up first."""

    def __post_init__(self) -> None:
        if self.bits not in (4, 8) or self.block not in BLOCKS:
            known = ", ".join(map(str, BLOCKS))
            raise ValueError(f"bits={self.bits}, block={self.block}: bits are 4 or 8, blocks {known}")

    def __str__(self) -> str:
        return f"int{self.bits}/{self.block}{' nearest' if self.to_nearest else ''}"

    def linear(self, g: OnnxBuilder, x: ir.Value, weight: Matrix, bias: ir.Value | None) -> ir.Value:
        outputs, inputs = weight.shape
        codes, scales, zero_points = self.store(g, weight)
        return g.op(
            "MatMulNBits",
            x,
            codes,
            scales,
            zero_points,
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
        if g.plain_rows:
            padded = plain_rows(g, ids, (flat, scales, zero_points), self.bits, self._blocks(inputs))
        else:
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

    def stored_bytes(self, outputs: int, inputs: int) -> int:
        """What a matrix takes in the file: codes, exponents and sizes, at 4 bits zero points."""
        blocks = self._blocks(inputs)
        zero_points = -(-blocks // 2) if self.bits == 4 else 0
        return outputs * (blocks * self._blob + blocks + 4 + zero_points)

    @property
    def calibrated(self) -> bool:
        return self.bits == 4 and not self.to_nearest

    def dequantized(self, rows: Float32, moment: Moment | None = None) -> Float32:
        values = self._rounder(moment)(rows).values()
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

    def _rounder(self, moment: Moment | None) -> Callable[[Float32], Blocks]:
        """What rounds rows `[some, inputs]` of a matrix that multiplies what has this moment."""
        priced = cache(lambda: costs(moment or (), self.block) if self.calibrated else ())
        if self.before is None:  # else perhaps nobody asks
            priced()

        def quantized(rows: Float32) -> Blocks:
            missing = -rows.shape[1] % self.block
            padded = np.pad(rows, ((0, 0), (0, missing))) if missing else rows
            if self.bits == 8:
                return nearest(padded, self.block)
            return rounded(padded, self.bits, self.block, priced(), COVERING if self.to_nearest else SEARCHED)

        before = self.before
        if before is None or not self.calibrated:
            return quantized
        return lambda rows: before.blocks(rows, lambda: quantized(rows))

    def store(self, g: OnnxBuilder, weight: Matrix) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        """Codes `[outputs, blocks, bytes]`, scales `[outputs, blocks]`, and at 4 bits zero points, two to a
        byte; at 8 bits zero is in the middle, which kernels take for granted.
        """
        outputs, inputs = weight.shape
        blocks = self._blocks(inputs)
        written: list[Blocks] = []  # without their codes, which come and go

        def codes() -> Iterator[UInt8]:
            rounder = self._rounder(weight.moment if self.calibrated else None)
            for piece in in_parallel(rounder, weight.chunks(elements=PIECE)):
                yield piece.codes if self.bits == 8 else _nibbles(piece.codes)
                written.append(piece.without_codes())

        stem = weight.name.removesuffix(".weight")
        stored = g.stored(f"{stem}.codes", ir.DataType.UINT8, (outputs, blocks, self._blob), codes)
        exponents = g.stored(
            f"{stem}.exponents",
            ir.DataType.UINT8,
            (outputs, blocks),
            lambda: (piece.exponents for piece in written),
        )
        sizes = g.stored(
            f"{stem}.sizes", ir.DataType.FLOAT, (outputs, 1), lambda: (piece.sizes for piece in written)
        )
        scales = _scales(g, exponents, sizes)
        if self.bits == 8:
            return stored, scales, None
        zero_points = g.stored(
            f"{stem}.zero_points",
            ir.DataType.UINT8,
            (outputs, -(-blocks // 2)),
            lambda: (_nibbles(_even(piece.zero_points)) for piece in written),
        )
        return stored, scales, zero_points


EXAMPLES = (NBits(4), NBits(8), NBits(4, block=128), NBits(4, to_nearest=True))


def _scales(g: OnnxBuilder, exponents: ir.Value, sizes: ir.Value) -> ir.Value:
    """`[outputs, blocks]`"""

    def make() -> ir.Value:
        indices = g.op("Cast", exponents, to=ir.DataType.INT32)
        scales = g.op("Mul", g.op("Gather", g.constant(SHARES), indices, axis=0), sizes)
        return scales if g.float == ir.DataType.FLOAT else g.op("Cast", scales, to=g.float)

    return g.once((exponents, "scales"), make)


def _even(values: UInt8) -> UInt8:
    """With a zero at the end if their number is odd."""
    return np.pad(values, ((0, 0), (0, values.shape[1] % 2)))


def _nibbles(values: UInt8) -> UInt8:
    """Two 4-bit values to a byte along the last axis, the first in the low half."""
    return values[..., 0::2] | values[..., 1::2] << np.uint8(4)
