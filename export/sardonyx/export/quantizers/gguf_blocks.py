"""The blocks of a quantized GGUF as they are: nothing is quantized a second time.

Every type is `scale * (code - middle)`, which is what MatMulNBits multiplies, and some add a minimum for each
group of weights. A float zero point would say so, fifty times slower. Here the minima are a second term: the
sum of x over each group times what the group adds to all of its weights.

The file keeps what the source keeps: codes of 4 to 8 bits, scales as halves, small integers as bytes. What
kernels want wider is computed from these by nodes that read nothing else. onnxruntime folds such nodes while
it loads, before kernels pack their weights, so that no step pays for them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sardonyx.export.checkpoint import Checkpoint, Float32
from sardonyx.export.checkpoint.gguf_blocks import LAYOUTS, Layout, Records, UInt8
from sardonyx.export.onnx_builder import MICROSOFT, OnnxBuilder
from sardonyx.export.quantizers import Quantizer
from sardonyx.export.quantizers.half import HALVES, Half
from sardonyx.export.quantizers.nbits import ACCURACY_LEVEL, NBits
from sardonyx.export.quantizers.none import Float
from sardonyx.export.weights import Matrix, Moment
from sardonyx.runtime.errors import SourceError

FOLDED = 2**30
"""Bytes. onnxruntime folds no constant that is larger, and every step would compute it again."""

Take = Callable[[Records], NDArray[Any]]
"""What is stored of some rows of blocks."""


@dataclass(frozen=True)
class GGUFBlocks:
    """Matrices in one of GGUF's quantized types, named in lower case: `q4_k`."""

    calibrated: ClassVar = False

    kind: str

    def __str__(self) -> str:
        return self.kind

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.kind]

    def linear(self, g: OnnxBuilder, x: ir.Value, weight: Matrix, bias: ir.Value | None) -> ir.Value:
        outputs, inputs = weight.shape
        product = g.op(
            "MatMulNBits",
            x,
            self._codes(g, weight),
            self._scales(g, weight),
            self._middles(g, weight),
            None,
            bias,
            domain=MICROSOFT,
            K=inputs,
            N=outputs,
            bits=self._kernel_bits,
            block_size=self.layout.width,
            accuracy_level=ACCURACY_LEVEL,
        )
        if not self.layout.affine:
            return product
        offsets = g.op("Transpose", self._offsets(g, weight), perm=[1, 0])
        return g.op("Add", product, g.op("MatMul", self._group_sums(g, x), offsets))

    def embed(self, g: OnnxBuilder, ids: ir.Value, table: Matrix) -> ir.Value:
        rows = g.op(
            "GatherBlockQuantized",
            self._flat_codes(g, table),
            ids,
            self._scales(g, table),
            self._middles(g, table),
            domain=MICROSOFT,
            bits=self._kernel_bits,
            block_size=self.layout.width,
            gather_axis=0,
            quantize_axis=1,
        )
        if not self.layout.affine:
            return rows
        groups = g.reshaped(rows, 0, 0, -1, self.layout.width)
        offsets = g.op("Gather", self._offsets(g, table), ids, axis=0)
        moved = g.op("Add", groups, g.op("Unsqueeze", offsets, g.integers(-1)))
        return g.reshaped(moved, 0, 0, table.shape[1])

    def dequantized(self, rows: Float32, moment: Moment | None = None) -> Float32:
        return rows

    def rounding(self, x: Float32) -> Float32:
        return NBits(8, block=self.layout.width).rounding(x)

    @property
    def _kernel_bits(self) -> int:
        return 4 if self.layout.bits == 4 else 8

    def _codes(self, g: OnnxBuilder, weight: Matrix) -> ir.Value:
        """`[outputs, groups, bytes of a group]`, as the kernel reads them."""
        outputs, inputs = weight.shape
        shape = (outputs, inputs // self.layout.width, self.layout.width)
        if self.layout.bits == 8 or (self.layout.bits > 4 and outputs * inputs > FOLDED):
            return self._stored(g, weight, "codes", ir.DataType.UINT8, shape, self.layout.codes)
        if self.layout.bits == 4:
            shape = (*shape[:2], shape[2] // 2)
            return self._stored(g, weight, "codes", ir.DataType.UINT8, shape, self._low_bits)
        return g.once((weight.name, "codes"), lambda: self._joined_codes(g, weight, shape))

    def _joined_codes(self, g: OnnxBuilder, weight: Matrix, shape: tuple[int, int, int]) -> ir.Value:
        """From the low four bits of each code and from bytes that hold the high bits of four or eight."""
        bits = self.layout.bits - 4
        together = 8 // bits
        split = (*shape[:2], shape[2] // together)
        low = self._stored(g, weight, "low_bits", ir.DataType.UINT4, (*split, together), self._low_bits)
        high = self._stored(g, weight, "high_bits", ir.DataType.UINT8, (*split, 1), self._high_bits)
        high = g.op("BitShift", high, _bytes(g, *range(0, 8, bits)), direction="RIGHT")
        high = g.op("BitwiseAnd", high, _bytes(g, 2**bits - 1))
        high = g.op("BitShift", high, _bytes(g, 4), direction="LEFT")
        codes = g.op("BitwiseOr", g.op("Cast", low, to=ir.DataType.UINT8), high)
        return g.reshaped(codes, *shape)

    def _middles(self, g: OnnxBuilder, weight: Matrix) -> ir.Value | None:
        """The kernel's zero points, `[outputs, groups]`; None where it has the same."""
        if self.layout.bits == self._kernel_bits:
            return None
        if self.layout.affine:
            return g.once((weight.name, "middles"), lambda: self._codes_of_zero(g, weight))
        outputs, inputs = weight.shape
        middle = _bytes(g, 2 ** (self.layout.bits - 1))
        return g.op("Expand", middle, g.integers(outputs, inputs // self.layout.width))

    def _codes_of_zero(self, g: OnnxBuilder, weight: Matrix) -> ir.Value:
        """The code nearest to a weight of zero. The kernel rounds activations while it multiplies codes less
        this one: the smaller these are, the less of that rounding is left.
        """
        lowest = g.op("Div", g.op("Neg", self._minima(g, weight)), self._scales(g, weight))
        finite = g.op("Where", g.op("IsNaN", lowest), g.constant(np.zeros((), np.float32)), lowest)
        ends = (g.constant(np.array(end, np.float32)) for end in (0, 2**self.layout.bits - 1))
        return g.op("Cast", g.op("Round", g.op("Clip", finite, *ends)), to=ir.DataType.UINT8)

    def _flat_codes(self, g: OnnxBuilder, table: Matrix) -> ir.Value:
        codes = self._codes(g, table)
        shape = (table.shape[0], table.shape[1] * self._kernel_bits // 8)
        if codes.const_value is not None:
            return g.alias(codes, f"{table.name}.rows", shape)
        return g.reshaped(codes, *shape)

    def _scales(self, g: OnnxBuilder, weight: Matrix) -> ir.Value:
        """`[outputs, groups]`"""
        return g.once(
            (weight.name, "scales"),
            lambda: self._per_group(g, weight, "scale", self.layout.scales, self.layout.scale_factors),
        )

    def _offsets(self, g: OnnxBuilder, weight: Matrix) -> ir.Value:
        """What each group adds to the kernel's idea of its weights, `[outputs, groups]`."""

        def make() -> ir.Value:
            middles = self._middles(g, weight)
            if middles is None:
                wide = g.constant(np.array(2 ** (self.layout.bits - 1), np.float32))
            else:
                wide = g.op("Cast", middles, to=ir.DataType.FLOAT)
            return g.op("Add", g.op("Mul", self._scales(g, weight), wide), self._minima(g, weight))

        return g.once((weight.name, "offsets"), make)

    def _minima(self, g: OnnxBuilder, weight: Matrix) -> ir.Value:
        """`[outputs, groups]`"""
        return g.once(
            (weight.name, "minima"),
            lambda: self._per_group(g, weight, "minimum", self.layout.minima, self.layout.minimum_factors),
        )

    def _per_group(self, g: OnnxBuilder, weight: Matrix, what: str, halves: Take, factors: Take) -> ir.Value:
        """Numbers `[outputs, groups]`: in the file, a half for each block times a factor for each group."""
        outputs, inputs = weight.shape
        blocks, groups = inputs // self.layout.weights, self.layout.groups
        if groups == 1:
            stored = self._stored(g, weight, what, ir.DataType.FLOAT16, (outputs, blocks), halves)
            return g.op("Cast", stored, to=ir.DataType.FLOAT)
        stored = self._stored(g, weight, what, ir.DataType.FLOAT16, (outputs, blocks, 1), halves)
        kind = ir.DataType.from_numpy(self.layout.fields["scales"][0].base)
        integers = self._stored(g, weight, f"{what}_factors", kind, (outputs, blocks, groups), factors)
        wide = (g.op("Cast", value, to=ir.DataType.FLOAT) for value in (stored, integers))
        return g.reshaped(g.op("Mul", *wide), outputs, blocks * groups)

    def _group_sums(self, g: OnnxBuilder, x: ir.Value) -> ir.Value:
        """`[..., inputs]` to `[..., groups]`, once for all matrices that read the same x."""

        def make() -> ir.Value:
            assert x.shape is not None
            kept = [0] * (len(x.shape) - 1)
            grouped = g.reshaped(x, *kept, -1, self.layout.width)
            return g.op("ReduceSum", grouped, g.integers(-1), keepdims=0)

        return g.once((x, "group sums", self.layout.width), make)

    def _stored(
        self,
        g: OnnxBuilder,
        weight: Matrix,
        what: str,
        dtype: ir.DataType,
        shape: tuple[int, ...],
        take: Take,
    ) -> ir.Value:
        first = what in ("codes", "low_bits")

        def chunks() -> Iterator[NDArray[Any]]:
            for name, rows in weight.raw_chunks():
                blocks = self.layout.records(rows)
                if first:
                    weight.on_read(self._magnitudes(blocks), name)
                yield take(blocks)

        return g.stored(f"{weight.name.removesuffix('.weight')}.{what}", dtype, shape, chunks)

    def _magnitudes(self, blocks: Records) -> Float32:
        """As many numbers as there are weights, finite where the weights are."""
        numbers = self.layout.scales(blocks).astype(np.float32)
        if self.layout.affine:
            numbers += self.layout.minima(blocks)
        return np.broadcast_to(numbers[..., None], (*blocks.shape, self.layout.weights))

    def _low_bits(self, blocks: Records) -> UInt8:
        return _packed(self.layout.codes(blocks) & np.uint8(15), 4)

    def _high_bits(self, blocks: Records) -> UInt8:
        return _packed(self.layout.codes(blocks) >> np.uint8(4), self.layout.bits - 4)


def as_stored(checkpoint: Checkpoint) -> tuple[tuple[str, Quantizer], ...]:
    """A rule for every tensor of a quantized GGUF. Raises SourceError for any other checkpoint."""
    kinds = {name: checkpoint.tensor(name).dtype for name in sorted(checkpoint.names())}
    if not LAYOUTS.keys() & set(kinds.values()):
        stored = ", ".join(sorted(set(kinds.values())))
        raise SourceError(
            f"{checkpoint.path}: recipe gguf carries over the blocks of a quantized GGUF, and here all is "
            f"{stored}; choose another recipe"
        )
    return tuple((name, _quantizer(kind)) for name, kind in kinds.items())


def _quantizer(kind: str) -> Quantizer:
    if kind in LAYOUTS:
        return GGUFBlocks(kind)
    return Half(kind) if kind in HALVES else Float()


EXAMPLES = ()
"""None that could be made from floats: these blocks come from files, and so do their tests."""


def _packed(values: UInt8, bits: int) -> UInt8:
    """As many values to a byte along the last axis as go into it, the first in the lowest bits."""
    together = 8 // bits
    places = np.arange(0, 8, bits, dtype=np.uint8)
    split = values.reshape(*values.shape[:-1], -1, together) << places
    packed: UInt8 = np.bitwise_or.reduce(split, axis=-1)
    return packed


def _bytes(g: OnnxBuilder, *values: int) -> ir.Value:
    return g.constant(np.array(values, np.uint8))
