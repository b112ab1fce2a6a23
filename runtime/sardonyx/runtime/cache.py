"""The cache arena: one array per state, a row per sequence, rows always packed from zero.

Rows are handed out as `Row` handles that stay valid while the arena moves what is behind them, so that a
batch of any live rows is a plain slice. It knows nothing of models or requests: it holds, copies, trims and
grows.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.backends.base import CacheView
from sardonyx.runtime.manifest import State

FIRST_CAPACITY = 256
"""Positions of a fresh arena; doubled when a row needs more."""


class Row:
    """One sequence's place in the arena, of `length` cached positions. `index` changes as others leave."""

    __slots__ = ("index", "length")

    def __init__(self, index: int) -> None:
        self.index = index
        self.length = 0


class Arena:
    """All cached states. `limit` is the most positions a row may have."""

    def __init__(self, states: Sequence[State], limit: int) -> None:
        self._states = states
        self._limit = limit
        self._rows: list[Row] = []
        self._memory = object()  # a new one whenever the tensors move
        self._tensors = self._allocate(1, min(FIRST_CAPACITY, limit))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def capacity(self) -> int:
        """Positions that each row has room for now."""
        return int(self._tensors[0].shape[2])

    @property
    def nbytes(self) -> int:
        """Bytes of all states, used or not."""
        return sum(tensor.nbytes for tensor in self._tensors)

    def row(self) -> Row:
        """A new, empty row."""
        row = Row(len(self._rows))
        if row.index == len(self._tensors[0]):
            self._resize(2 * row.index, self.capacity)
        self._rows.append(row)
        return row

    def fork(self, parent: Row, length: int) -> Row:
        """A new row that begins with the first `length` positions of another."""
        row = self.row()
        self._copy(parent.index, row.index, length)
        row.length = length
        return row

    def trim(self, row: Row, length: int) -> None:
        """Forget what follows the first `length` positions."""
        row.length = min(row.length, length)

    def release(self, row: Row) -> None:
        """Give a row back. The last row moves into its place, so that live rows stay packed."""
        last = self._rows.pop()
        if last is not row:
            self._copy(last.index, row.index, last.length)
            self._rows[row.index] = last
            last.index = row.index

    def reserve(self, positions: int) -> None:
        """Make room for that many positions in every row, by doubling, up to the limit."""
        capacity = self.capacity
        while capacity < min(positions, self._limit):
            capacity = min(2 * capacity, self._limit)
        if capacity != self.capacity:
            self._resize(len(self._tensors[0]), capacity)

    def view(self, start: int, stop: int) -> CacheView:
        """Rows `[start:stop]`, in place."""
        return CacheView([tensor[start:stop] for tensor in self._tensors], self._memory, (start, stop))

    def lengths(self, start: int, stop: int) -> list[int]:
        """Cached positions of rows `[start:stop]`."""
        return [row.length for row in self._rows[start:stop]]

    def _copy(self, source: int, target: int, length: int) -> None:
        for tensor in self._tensors:
            tensor[target, :, :length] = tensor[source, :, :length]

    def _resize(self, rows: int, capacity: int) -> None:
        old, self._tensors = self._tensors, self._allocate(rows, capacity)
        self._memory = object()
        for before, after in zip(old, self._tensors, strict=True):
            for row in self._rows:
                after[row.index, :, : row.length] = before[row.index, :, : row.length]

    def _allocate(self, rows: int, capacity: int) -> list[NDArray[np.float32]]:
        # zeros, not empty: the pages stay unbacked until a position is written, and no run reads
        # uninitialised memory
        return [np.zeros((rows, s.shape[0], capacity, s.shape[1]), s.dtype) for s in self._states]
