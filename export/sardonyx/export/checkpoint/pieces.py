"""Tensors made of others that stay on disk: some rows of one, one turned over, several joined.

What formats store together, in another order or with an offset becomes here the tensors that descriptions ask
for. Nothing is read before its rows are wanted. Knows no format and no architecture.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sardonyx.export.checkpoint import Float32, LazyTensor
from sardonyx.export.checkpoint.stored import StoredTensor

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Rows:
    """Rows `[start:stop]` out of each of `groups` equal groups of a tensor's rows."""

    whole: LazyTensor
    groups: int
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.groups * (self.stop - self.start), *self.whole.shape[1:]

    @property
    def dtype(self) -> str:
        return self.whole.dtype

    def rows(self, start: int, stop: int) -> Float32:
        return self._taken(self.whole.rows, start, stop)

    def raw(self, start: int, stop: int) -> Bytes:
        return self._taken(self.whole.raw, start, stop)

    def _taken(self, read: Callable[[int, int], NDArray[Any]], start: int, stop: int) -> NDArray[Any]:
        if self.groups == 1:
            return read(self.start + start, self.start + stop)
        group, size = self.whole.shape[0] // self.groups, self.stop - self.start
        first, last = start // size, -(-stop // size)  # groups
        rows = read(first * group, last * group)
        taken = rows.reshape(last - first, group, *rows.shape[1:])[:, self.start : self.stop]
        return taken.reshape(-1, *rows.shape[1:])[start - first * size : stop - first * size]


@dataclass(frozen=True)
class Joined:
    """Tensors one after another along their first axis."""

    parts: Sequence[LazyTensor]

    @property
    def shape(self) -> tuple[int, ...]:
        return sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:]

    @property
    def dtype(self) -> str:
        return self.parts[0].dtype

    def rows(self, start: int, stop: int) -> Float32:
        return np.concatenate([part.rows(*span) for part, span in self._spans(start, stop)])

    def raw(self, start: int, stop: int) -> Bytes:
        return np.concatenate([part.raw(*span) for part, span in self._spans(start, stop)])

    def _spans(self, start: int, stop: int) -> Iterator[tuple[LazyTensor, tuple[int, int]]]:
        """The parts that hold these rows, each with its own of them."""
        for part in self.parts:
            count = part.shape[0]
            if start < count and stop > 0:
                yield part, (max(start, 0), min(stop, count))
            start, stop = start - count, stop - count


@dataclass(frozen=True)
class Interleaved:
    """Tensors of the same shape, row by row in turns."""

    parts: Sequence[LazyTensor]

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.parts) * self.parts[0].shape[0], *self.parts[0].shape[1:]

    @property
    def dtype(self) -> str:
        return self.parts[0].dtype

    def rows(self, start: int, stop: int) -> Float32:
        return self._in_turns([part.rows for part in self.parts], start, stop)

    def raw(self, start: int, stop: int) -> Bytes:
        return self._in_turns([part.raw for part in self.parts], start, stop)

    def _in_turns(
        self, reads: Sequence[Callable[[int, int], NDArray[Any]]], start: int, stop: int
    ) -> NDArray[Any]:
        turns = len(reads)
        first, last = start // turns, -(-stop // turns)
        rows = np.stack([read(first, last) for read in reads], axis=1)
        flat = rows.reshape(-1, *rows.shape[2:])
        return flat[start - first * turns : stop - first * turns]


class Computed:
    """A tensor of any shape that is computed from a whole other one.

    The whole is read with the first rows that are asked for, and let go with the last.
    """

    def __init__(
        self, whole: LazyTensor, shape: tuple[int, ...], compute: Callable[[Float32], Float32]
    ) -> None:
        self.shape = shape
        self._whole = whole
        self._compute = compute
        self._kept: Float32 | None = None

    @property
    def dtype(self) -> str:
        return "float32"

    def rows(self, start: int, stop: int) -> Float32:
        if self._kept is None:
            self._kept = self._compute(self._whole.rows(0, self._whole.shape[0]))
        rows = self._kept[start:stop]
        if stop == self.shape[0]:
            self._kept = None
        return rows

    def raw(self, start: int, stop: int) -> Bytes:
        rows = np.ascontiguousarray(self.rows(start, stop))
        return rows.view(np.uint8).reshape(stop - start, -1)


def elements(whole: StoredTensor) -> Sequence[StoredTensor]:
    """The slices of a tensor along its first axis, each a tensor by itself."""
    count, *shape = whole.shape
    return [
        replace(
            whole,
            shape=tuple(shape),
            offset=whole.offset + index * whole.row_bytes,
            row_bytes=whole.row_bytes // shape[0],
        )
        for index in range(count)
    ]


def transposed(whole: LazyTensor) -> LazyTensor:
    """A matrix that is stored as `[inputs, outputs]`, the other way round; a vector as it is."""
    if len(whole.shape) != 2:
        return whole
    return Computed(whole, (whole.shape[1], whole.shape[0]), np.transpose)


def flattened(whole: LazyTensor) -> LazyTensor:
    """A small tensor of any shape as a vector."""
    return Computed(whole, (prod(whole.shape),), np.ravel)


def without_axis(whole: LazyTensor) -> LazyTensor:
    """A small tensor `[a, 1, b]` as a matrix `[a, b]`."""
    first, *_, last = whole.shape
    return Computed(whole, (first, last), lambda values: values.reshape(first, last))


def shifted(whole: LazyTensor, by: float) -> LazyTensor:
    """A small tensor whose stored numbers lack an offset."""
    return Computed(whole, whole.shape, lambda values: values + np.float32(by))
