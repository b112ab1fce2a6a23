"""Which rows of a batch a graph takes at once. Pure arithmetic on lengths; knows no session."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sardonyx.runtime.backends.base import Batch
from sardonyx.runtime.backends.signature import Signature

Row = tuple[int, int]
"""Positions that a row holds already, and its new tokens."""


@dataclass(frozen=True)
class Pass:
    """Rows of a batch and their new tokens from column `first` on, `width` at most."""

    rows: slice
    first: int
    width: int


def passes(batch: Batch, signature: Signature) -> Iterator[Pass]:
    """All new tokens of a batch, in order, in as few passes as give every row what it gets alone.

    Rows that get no token are in none.
    """
    together = _together(signature)
    rows = [
        (int(length - count), int(count)) for length, count in zip(batch.lengths, batch.counts, strict=True)
    ]
    start = 0
    while start < len(rows):
        stop = start + 1
        if rows[start][1]:
            while (
                stop < len(rows)
                and rows[stop][1]
                and all(together(member, rows[stop]) for member in rows[start:stop])
            ):
                stop += 1
            width = max(count for _, count in rows[start:stop])
            for first, end in _cut(batch, start, width) if signature.last_only else [(0, width)]:
                yield Pass(slice(start, stop), first, end - first)
        start = stop


def _together(signature: Signature) -> Callable[[Row, Row], bool]:
    """Whether two rows may share a pass."""

    def single(one: Row, other: Row) -> bool:
        return one[1] == other[1] == 1

    def fresh(one: Row, other: Row) -> bool:
        return one[0] == other[0] == 0

    if signature.mixing:
        return lambda one, other: False
    if signature.in_place:  # the kernel takes several tokens behind a past of one row alone
        if signature.last_only:
            return single
        return lambda one, other: single(one, other) or fresh(one, other)
    if signature.last_only:
        return lambda one, other: single(one, other) and (signature.ragged or one[0] == other[0])
    return lambda one, other: signature.ragged or one[0] == other[0]


def _cut(batch: Batch, row: int, width: int) -> Iterator[tuple[int, int]]:
    """Where a graph gives logits of the last token alone: a pass ends wherever some are wanted."""
    rows, columns = np.divmod(batch.logit_rows, batch.ids.shape[1])
    ends = sorted({int(column) + 1 for column in columns[rows == row]} | {width})
    return zip([0, *ends], ends, strict=False)
