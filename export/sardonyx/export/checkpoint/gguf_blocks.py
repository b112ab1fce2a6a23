"""The blocks of GGUF's quantized types, taken apart into integers and halves without rounding anything.

Layouts are those of ggml (`ggml-common.h`), the order of the weights in a block that of `dequantize_row_*` in
its `ggml-quants.c`: https://github.com/ggml-org/ggml. It knows bytes, not what becomes of the integers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Float16 = NDArray[np.float16]
Records = NDArray[Any]
"""Blocks as structured arrays `[rows, blocks]`, with ggml's names of the fields."""


@dataclass(frozen=True)
class Layout:
    """Blocks of one type: `groups` groups of `width` weights, codes of `bits` bits in each.

    `weight = scale * (code - 2^(bits - 1))`, or `weight = scale * code + minimum` where `affine`. A group's
    scale is the block's half-precision number, times an integer of its own if it has one; so is its minimum.
    """

    bits: int
    record: np.dtype[Any]
    groups: int = 1
    width: int = 32
    low_run: int = 16
    """Bytes in which a run of low nibbles is followed by the high nibbles of the same bytes."""
    high_run: int = 1
    """Likewise for the bits above the fourth."""

    @property
    def weights(self) -> int:
        """In a block."""
        return self.groups * self.width

    @property
    def affine(self) -> bool:
        return "m" in self.fields or "dmin" in self.fields

    @property
    def fields(self) -> Mapping[str, Any]:
        return self.record.fields or {}

    def records(self, rows: UInt8) -> Records:
        """Rows as they are stored, `[rows, bytes]`, as records `[rows, blocks]`."""
        return np.ascontiguousarray(rows).view(self.record)

    def codes(self, blocks: Records) -> UInt8:
        """Unsigned codes in the order of the weights, `[rows, blocks * groups, width]`."""
        packed: UInt8 = blocks["qs"]
        codes = packed ^ np.uint8(128) if self.bits == 8 else _fields(packed, self.low_run, 4)  # int8 + 128
        if "qh" in self.fields:
            codes |= _fields(blocks["qh"], self.high_run, self.bits - 4) << np.uint8(4)
        return codes.reshape(len(blocks), -1, self.width)

    def scales(self, blocks: Records) -> Float16:
        """Each block's half-precision scale, `[rows, blocks]`."""
        return blocks["d"]

    def minima(self, blocks: Records) -> Float16:
        """Each block's half-precision minimum, `[rows, blocks]`. Of an affine layout only."""
        return blocks["m"] if "m" in self.fields else -blocks["dmin"]

    def scale_factors(self, blocks: Records) -> NDArray[Any]:
        """What each group's scale is multiplied by, `[rows, blocks, groups]`, int8 or uint8."""
        return _six_bits(blocks["scales"])[0] if self.affine else blocks["scales"]

    def minimum_factors(self, blocks: Records) -> UInt8:
        """What each group's minimum is multiplied by, `[rows, blocks, groups]`. Of an affine layout only."""
        return _six_bits(blocks["scales"])[1]


def _fields(packed: UInt8, run: int, bits: int) -> UInt8:
    """Bit fields of bytes `[..., n]`: of each run of bytes all lowest fields first, then all second, ..."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    runs = packed.reshape(*packed.shape[:-1], -1, 1, run)
    fields: UInt8 = runs >> shifts & np.uint8(2**bits - 1)  # [..., runs, 8 / bits, run]
    return fields.reshape(*packed.shape[:-1], -1)


def _six_bits(packed: UInt8) -> tuple[UInt8, UInt8]:
    """Eight scale and eight minimum factors from twelve bytes (`get_scale_min_k4`)."""
    first, second, third = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    low, four = np.uint8(63), np.uint8(4)
    scales = np.concatenate([first & low, third & np.uint8(15) | first >> np.uint8(6) << four], -1)
    minima = np.concatenate([second & low, third >> four | second >> np.uint8(6) << four], -1)
    return scales, minima


def _record(*fields: tuple[str, str] | tuple[str, str, int]) -> np.dtype[Any]:
    return np.dtype(list(fields))


_D, _M, _DMIN = ("d", "<f2"), ("m", "<f2"), ("dmin", "<f2")
_QS, _QH = ("qs", "u1", 16), ("qh", "u1", 4)
_QS_K, _SCALES_K = ("qs", "u1", 128), ("scales", "u1", 12)

LAYOUTS: Mapping[str, Layout] = {
    "q4_0": Layout(4, _record(_D, _QS)),
    "q4_1": Layout(4, _record(_D, _M, _QS)),
    "q5_0": Layout(5, _record(_D, _QH, _QS)),
    "q5_1": Layout(5, _record(_D, _M, _QH, _QS)),
    "q8_0": Layout(8, _record(_D, ("qs", "u1", 32))),
    "q4_k": Layout(4, _record(_D, _DMIN, _SCALES_K, _QS_K), groups=8, low_run=32),
    "q5_k": Layout(
        5, _record(_D, _DMIN, _SCALES_K, ("qh", "u1", 32), _QS_K), groups=8, low_run=32, high_run=32
    ),
    "q6_k": Layout(
        6,
        _record(_QS_K, ("qh", "u1", 64), ("scales", "i1", 16), _D),
        groups=16,
        width=16,
        low_run=64,
        high_run=32,
    ),
}
"""By the name of the type in lower case."""
