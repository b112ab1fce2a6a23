"""Tensors that stay on disk until their rows are wanted. Knows bytes and offsets, and no file format.

Rows are read with plain file reads, a few megabytes at a time, never through a memory map: pages of a mapped
file count as the process's memory, and a model of many gigabytes must pass through a small one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sardonyx.export.checkpoint import Float32, LazyTensor
from sardonyx.runtime.errors import SourceError

Bytes = NDArray[np.uint8]
_STRIDE = 1 << 22  # bytes held in stored form at a time


@dataclass(frozen=True)
class StoredTensor:
    """A tensor at a place in a file, whose rows (slices of the first axis) each take `row_bytes`.

    `decode` turns stored rows `[rows, row_bytes]` into as many rows of float32, in any shape of the right
    size.
    """

    path: Path
    name: str
    """The file's own name for it, for messages."""
    dtype: str
    shape: tuple[int, ...]
    offset: int
    row_bytes: int
    decode: Callable[[Bytes], Float32]

    @property
    def end(self) -> int:
        """The file offset just behind the last row."""
        return self.offset + self.shape[0] * self.row_bytes

    def rows(self, start: int, stop: int) -> Float32:
        """Slice `[start:stop]` of the first axis. Raises SourceError when the file has become shorter."""
        self._check_range(start, stop)
        rows = np.empty((stop - start, *self.shape[1:]), np.float32)
        step = max(1, _STRIDE // max(1, self.row_bytes))
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            part[:] = self.decode(self.raw(start + first, start + first + len(part))).reshape(part.shape)
        return rows

    def raw(self, start: int, stop: int) -> Bytes:
        """The same slice as it lies in the file, `[stop - start, row_bytes]`."""
        self._check_range(start, stop)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset + start * self.row_bytes)
            stored = file.read((stop - start) * self.row_bytes)
        if len(stored) < (stop - start) * self.row_bytes:
            raise SourceError(f"{self.path}: became shorter while tensor {self.name} was being read")
        return np.frombuffer(stored, np.uint8).reshape(stop - start, self.row_bytes)

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.shape[0]:
            raise IndexError(f"{self.name} has {self.shape[0]} rows, not {start}:{stop}")


@dataclass(frozen=True)
class Deinterleaved:
    """Rows of q or k that are stored in the order of interleaved rotary embedding, given back in Hugging
    Face's.

    Interleaved rotary turns neighbours `(2j, 2j + 1)` of a head; Hugging Face turns `(j, j + width / 2)`.
    llama.cpp's converter therefore stores row `c * width / 2 + j` of each head as its row `2j + c`; this
    undoes it.
    """

    stored: LazyTensor
    heads: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def dtype(self) -> str:
        return self.stored.dtype

    def rows(self, start: int, stop: int) -> Float32:
        """Slice `[start:stop]` of the first axis; reads the whole heads that it touches."""
        return self._in_order(self.stored.rows, start, stop)

    def raw(self, start: int, stop: int) -> Bytes:
        """The same slice as it lies in the file, `[stop - start, row_bytes]`."""
        return self._in_order(self.stored.raw, start, stop)

    def _in_order(self, read: Callable[[int, int], NDArray[Any]], start: int, stop: int) -> NDArray[Any]:
        width = self.shape[0] // self.heads
        first, last = start // width, -(-stop // width)  # heads
        pairs = read(first * width, last * width)
        halves = pairs.reshape(last - first, width // 2, 2, *pairs.shape[1:]).swapaxes(1, 2)
        return halves.reshape(pairs.shape)[start - first * width : stop - first * width]
