"""The cache arena: one array per state, a row per sequence, rows always packed from zero.

Rows are handed out as `Row` handles that stay valid while the arena moves what is behind them, so that a
batch of any live rows is a plain slice. It knows nothing of models or requests: it holds, copies, trims,
grows and shrinks.
"""

import math
import mmap
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.backends.base import ArenaMemory, CacheView
from sardonyx.runtime.manifest import State

FIRST_CAPACITY = 256
"""Positions of a fresh arena; doubled when a row needs more."""


class Row:
    """One sequence's place in the arena, of `length` cached positions. `index` changes as others leave.

    The first `canonical` of them were computed several at a time, so that their numbers are those of any
    other way to cut the text; a position that was computed alone has other last bits. A row cannot be cut to
    less than `floor`: of what is below, some state remembers too little. What it holds was computed with one
    of the model's adapters, 0 for none.
    """

    __slots__ = ("adapter", "canonical", "floor", "index", "length")

    def __init__(self, index: int, adapter: int = 0) -> None:
        self.index = index
        self.adapter = adapter
        self.length = 0
        self.canonical = 0
        self.floor = 0

    def extend(self, count: int, canonical: bool) -> None:
        """Count positions that were written behind those that there are."""
        if canonical and self.canonical == self.length:
            self.canonical += count
        self.length += count

    def trim(self, length: int) -> None:
        """Forget what follows the first `length` positions."""
        self.length = min(self.length, length)
        self.canonical = min(self.canonical, length)


class Arena:
    """All cached states. `limit` is the most positions a row may have.

    Of kind `kv` every position is there until it is trimmed. Of kind `window` only the last few are: a row
    that is cut further back than these is left without any, and whoever has its tokens feeds them again.

    Memory follows need: rows and positions double when they run out, and halve when three quarters of them
    lie idle as a row leaves. So a process that lives long does not keep for ever what one busy hour took. Of
    `most_bytes` no more are taken, once a resize is over; close to that, there is room for what is needed.
    """

    def __init__(self, states: Sequence[State], limit: int, most_bytes: int | None = None) -> None:
        self._states = states
        self._spare = min((s.spare for s in states if s.kind == "window"), default=None)
        kept, windows = (
            sum(np.dtype(s.dtype).itemsize * s.shape[0] * s.shape[1] for s in states if s.kind == kind)
            for kind in ("kv", "window")
        )
        self.bytes_per_position = max(kept, 1)
        """Bytes that one more position of one row takes."""
        self.overhead = -(-windows // self.bytes_per_position)
        """Positions that would take what each row takes however long it is."""
        self.most = None if most_bytes is None else most_bytes // self.bytes_per_position
        """Positions that all rows together may have room for, if that is limited; overhead counts."""
        self._limit = limit if self.most is None else max(1, min(limit, self.most - self.overhead))
        self._rows: list[Row] = []
        self._tensors: list[NDArray[Any]]
        self._view = CacheView([], ArenaMemory(), (0, 0))
        self.capacity: int
        """Positions that each row has room for now."""
        self._resize(1, _capacity_for(0, self._limit))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def holds_all(self) -> bool:
        """Whether every position stays there, so that rows can be cut, read and put together anywhere."""
        return self._spare is None

    @property
    def nbytes(self) -> int:
        """Bytes of all states, used or not."""
        return sum(tensor.nbytes for tensor in self._tensors)

    def row(self, adapter: int = 0) -> Row:
        """A new, empty row."""
        row = Row(len(self._rows), adapter)
        if row.index == self._places:
            self._make_room(row.index + 1, max(one.length for one in self._rows))
        self._rows.append(row)
        return row

    def fork(self, parent: Row, length: int, into: Row | None = None) -> Row:
        """A row that begins with the first `length` positions of another: a new one, or one to overwrite. It
        is left without any if that is too far back.
        """
        row = self.row() if into is None else into
        row.length, row.canonical, row.floor = parent.length, parent.canonical, parent.floor
        row.adapter = parent.adapter
        self._copy(parent.index, row.index, min(parent.length, length))
        self.trim(row, length)
        return row

    def left(self, row: Row, length: int, reserve: int = 1) -> int:
        """So many positions `trim` would leave."""
        if self._spare is None or length >= row.length:
            return min(length, row.length)
        floor = max(row.floor, row.length - self._spare)
        return 0 if length < floor + reserve else length

    def trim(self, row: Row, length: int, reserve: int = 1) -> None:
        """Forget what follows the first `length` positions; all of them, if that is too far back.

        Not too far is what leaves a `reserve`: the last position may be computed once more, which takes one.
        """
        left = self.left(row, length, reserve)
        if self._spare is not None and left < row.length:
            row.floor = max(row.floor, row.length - self._spare) if left else 0
            self._set_back(row.index, row.length - left if left else 0)
        row.trim(left)

    def undo(self, row: Row, length: int, canonical: int) -> None:
        """After a pass that failed, a row as it was before; empty where nobody knows what is left of it."""
        if self._spare is not None:
            length = canonical = row.floor = 0
        row.length, row.canonical = length, canonical

    def read(self, row: Row, start: int, stop: int) -> list[NDArray[Any]]:
        """A copy of positions `[start:stop]` of a row: of each state `[heads, positions, width]`."""
        assert stop <= row.length
        self._view.memory.look(False)
        return [tensor[row.index, :, start:stop].copy() for tensor in self._tensors]

    def append(self, row: Row, parts: Sequence[Sequence[NDArray[Any]]]) -> None:
        """Add canonical positions from elsewhere to a row: part after part, each as `read` gives it."""
        start, count = row.length, sum(part[0].shape[1] for part in parts)
        self.reserve(start + count)
        self._view.memory.look(True)
        for tensor, *states in zip(self._tensors, *parts, strict=True):
            np.concatenate(states, axis=1, out=tensor[row.index, :, start : start + count])
        row.extend(count, canonical=True)

    def release(self, row: Row) -> None:
        """Give a row back. The last row moves into its place, so that live rows stay packed."""
        assert self._rows[row.index] is row, "this row has been released before"
        last = self._rows.pop()
        if last is not row:
            self._copy(last.index, row.index, last.length)
            self._rows[row.index] = last
            last.index = row.index
        self._shrink()

    def keep(self, rows: Sequence[Row], kept: Sequence[tuple[int, int]]) -> list[Row]:
        """For each (index of a row, length) a row that begins with so many of its positions.

        The rows given are used up: kept, trimmed, overwritten or released. Raises ValueError, and changes
        nothing, when asked for positions that are not there.
        """
        for index, length in kept:
            if not (0 <= index < len(rows) and 0 <= length <= rows[index].length):
                raise ValueError(f"{length} positions of row {index} are to be kept, which are not there")
        heir = {index: child for child, (index, _) in reversed(list(enumerate(kept)))}
        spare = [row for index, row in enumerate(rows) if index not in heir]
        spare += [self.row() for _ in range(len(kept) - len(rows))]
        children = []
        for child, (index, length) in enumerate(kept):
            parent = rows[index]
            children.append(parent if heir[index] == child else self.fork(parent, length, spare.pop()))
        for index, child in heir.items():  # once nothing is to be copied from it any more
            self.trim(rows[index], kept[child][1])
        for row in spare:
            self.release(row)
        return children

    def reserve(self, positions: int) -> None:
        """Make room for that many positions in every row, `limit` at most."""
        assert positions <= self._limit
        if positions > self.capacity:
            self._make_room(len(self._rows), positions)

    def view(self, start: int, stop: int) -> CacheView:
        """Rows `[start:stop]`, in place."""
        if self._view.rows != (start, stop):  # most steps take the rows of the step before
            tensors = [tensor[start:stop] for tensor in self._tensors]
            self._view = CacheView(tensors, self._view.memory, (start, stop))
        return self._view

    def lengths(self, start: int, stop: int) -> list[int]:
        """Cached positions of rows `[start:stop]`."""
        return [row.length for row in self._rows[start:stop]]

    def adapters(self, start: int, stop: int) -> list[int]:
        """The adapters of rows `[start:stop]`."""
        return [row.adapter for row in self._rows[start:stop]]

    def _copy(self, source: int, target: int, length: int) -> None:
        self._view.memory.look(True)
        for state, tensor in zip(self._states, self._tensors, strict=True):
            filled = slice(length if state.kind == "kv" else None)
            tensor[target, :, filled] = tensor[source, :, filled]

    def _set_back(self, index: int, positions: int) -> None:
        """Windows end so many positions earlier. What comes to stand at their beginning is never read."""
        self._view.memory.look(True)
        for state, tensor in zip(self._states, self._tensors, strict=True):
            if state.kind == "window" and positions:
                tensor[index, positions:] = tensor[index, :-positions].copy()

    def _make_room(self, rows: int, positions: int) -> None:
        """Room for so many rows of so many positions: twice what there is, unless that is too much."""
        places = self._places if rows <= self._places else 2 * self._places
        capacity = max(self.capacity, _capacity_for(positions, self._limit))
        if self.most is not None and places * (capacity + self.overhead) > self.most:
            places, capacity = rows, min(capacity, self.most // rows - self.overhead)
            assert positions <= capacity, "more is asked of the cache than it may hold"
        self._resize(places, capacity)

    def _shrink(self) -> None:
        longest = max((row.length for row in self._rows), default=0)
        places, capacity = self._places, self.capacity
        while places > 1 and 4 * len(self._rows) <= places:
            places //= 2
        if 4 * longest <= capacity:
            capacity = min(capacity, _capacity_for(2 * longest, self._limit))
        if (places, capacity) != (self._places, self.capacity):
            self._resize(places, capacity)

    def _resize(self, places: int, capacity: int) -> None:
        """Move to fresh tensors for so many rows of so many positions."""
        self._view.memory.look(False)
        fresh = [_zeros((places, *_of_one_row(s, capacity)), s.dtype) for s in self._states]
        for row in self._rows:
            for state, before, after in zip(self._states, self._tensors, fresh, strict=True):
                filled = slice(row.length if state.kind == "kv" else None)
                after[row.index, :, filled] = before[row.index, :, filled]
        self.capacity = capacity
        self._places = places
        self._tensors = fresh
        self._view = CacheView(fresh, ArenaMemory(), (0, places))  # other memory says that the tensors moved


def _zeros(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Zeros of which a page takes memory once a position in it is written.

    numpy asks the system for huge pages where it can: then the first position of each head of each row takes
    2 MiB, which is zeroed there and then, and a running answer waits for it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < 4 << 20 or sys.platform != "linux":
        return np.zeros(shape, dtype)
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a system that knows no huge pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


def _of_one_row(state: State, capacity: int) -> tuple[int, ...]:
    """Its shape: that of a window does not depend on how many positions there is room for."""
    return (state.shape[0], capacity, *state.shape[1:]) if state.kind == "kv" else tuple(state.shape)


def _capacity_for(positions: int, limit: int) -> int:
    """FIRST_CAPACITY, doubled until the positions fit, within the limit."""
    capacity = FIRST_CAPACITY
    while capacity < positions:
        capacity *= 2
    return min(capacity, limit)
