"""Which rows of a batch a graph takes at once. Pure arithmetic on lengths; knows no session."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class Rules:
    """What may share a pass: two rows, and how many tokens of a row, fewer `behind` a past. `last_only`:
    logits come of the last token of a pass alone.
    """

    together: Callable[[Row, Row], bool]
    last_only: bool = False
    widest: int | None = None
    behind: int | None = None


def single(one: Row, other: Row) -> bool:
    """Rows of one token each."""
    return one[1] == other[1] == 1


def fresh(one: Row, other: Row) -> bool:
    """Rows without a past."""
    return one[0] == other[0] == 0


def alone(one: Row, other: Row) -> bool:
    """No two rows."""
    return False


@dataclass(frozen=True)
class Share:
    """What a pass has of its batch: for each of its rows the positions that are cached before it, and its new
    tokens; and which of the batch's `logit_rows` it answers, by their rows and columns within the pass.
    """

    past: NDArray[np.int32]  # [rows]
    counts: NDArray[np.int32]  # [rows]
    asked: NDArray[np.intp]  # [asked], indices into the batch's logit_rows
    rows: NDArray[np.int64]  # [asked]
    columns: NDArray[np.int64]  # [asked]


def share(batch: Batch, one: Pass) -> Share:
    """What falls to a pass."""
    rows, columns = np.divmod(batch.logit_rows, batch.ids.shape[1])
    inside = (one.rows.start <= rows) & (rows < one.rows.stop)
    inside &= (one.first <= columns) & (columns < one.first + one.width)
    asked = np.flatnonzero(inside)
    return Share(
        batch.lengths[one.rows] - batch.counts[one.rows] + one.first,
        np.clip(batch.counts[one.rows] - one.first, 0, one.width),
        asked,
        rows[asked] - one.rows.start,
        columns[asked] - one.first,
    )


def passes(batch: Batch, rules: Rules) -> Iterator[Pass]:
    """All new tokens of a batch, in order, in as few passes as give every row what it gets alone.

    Rows that get no token are in none.
    """
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
                and all(rules.together(member, rows[stop]) for member in rows[start:stop])
            ):
                stop += 1
            width = max(count for _, count in rows[start:stop])
            for first, end in pairwise(_cuts(batch, start, width, rules)):
                yield Pass(slice(start, stop), first, end - first)
        start = stop


def rules_of(signature: Signature) -> Rules:
    """What a graph of other origin takes at once."""
    return Rules(_together(signature), signature.last_only, signature.first, signature.behind)


def _together(signature: Signature) -> Callable[[Row, Row], bool]:
    if signature.mixing:
        return alone
    if signature.behind:  # single tokens behind a past, or beginnings: never both in one pass
        return lambda one, other: (
            (single(one, other) or fresh(one, other))
            and bool(one[0]) == bool(other[0])
            and (signature.ragged or one[0] == other[0])
        )
    if signature.in_place:  # the kernel takes several tokens behind a past of one row alone
        if signature.last_only:
            return single
        return lambda one, other: single(one, other) or fresh(one, other)
    if signature.last_only:
        return lambda one, other: single(one, other) and (signature.ragged or one[0] == other[0])
    return lambda one, other: signature.ragged or one[0] == other[0]


def _cuts(batch: Batch, row: int, width: int, rules: Rules) -> list[int]:
    """The columns at which passes begin and end: where they are as wide as may be, and, where only the last
    token of a pass gets logits, where some are wanted.
    """
    past = batch.lengths[row] > batch.counts[row]
    cuts = {*range(0, width, (past and rules.behind) or rules.widest or width), width}
    if rules.last_only:
        rows, columns = np.divmod(batch.logit_rows, batch.ids.shape[1])
        cuts |= {int(column) + 1 for column in columns[rows == row]}
    if rules.behind and not past:  # what follows the first piece is behind a past
        cuts |= set(range(sorted(cuts)[1], width, rules.behind))
    return sorted(cuts)
