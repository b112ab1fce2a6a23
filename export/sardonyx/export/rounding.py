"""Rounding weights to blocks of a few bits so that what they are multiplied with comes out right.

To round each weight to the nearest code makes small errors in weights; what counts are errors in products,
and those can cancel. Three steps, each row by itself:

- search: for each block the scale with the least error, weights counted by what they multiply;
- compensate: column after column, each passes its error on to those not yet rounded (GPTQ, arXiv 2210.17323);
- descend: each block's scale, then each code once more, with all others as they are (arXiv 2406.17542).

A row for which all that comes to nothing better has its weights rounded to the nearest. It knows numbers
only: not where weights come from nor how codes are packed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sardonyx.export.checkpoint import Float32
from sardonyx.export.rounding_cost import Cost

UInt8 = NDArray[np.uint8]

STEPS = 32
"""Scales of a row's blocks are a power of two to so many parts: one byte each, 2 % apart."""

SHARES = np.exp2(-np.arange(256) / STEPS).astype(np.float32)
"""What a block's scale is of its row's largest one, by exponent."""

COVERING = range(1)
"""Of exponents, the one whose scale covers a block from end to end, and no other."""

SEARCHED = range(0, 24, 3)
"""Exponents tried beyond the covering one: down to 0.6 of that scale."""

HEADROOM = np.float32(2)
"""By which a row's largest scale exceeds what its weights need: compensation makes some of them larger."""

SWEEPS = 2
"""Times that `descend` goes over all columns."""

TOGETHER = 8
"""Columns that are rounded before their changes reach the rest of the block in one product."""


@dataclass(frozen=True)
class Blocks:
    """Rows of weights as `size * SHARES[exponent] * (code - zero_point)`."""

    codes: UInt8  # [rows, blocks, block]
    exponents: UInt8  # [rows, blocks]
    zero_points: UInt8  # [rows, blocks]
    sizes: Float32  # [rows]

    @property
    def scales(self) -> Float32:
        """`[rows, blocks]`"""
        scales: Float32 = SHARES[self.exponents] * self.sizes[:, None]
        return scales

    def without_codes(self) -> "Blocks":
        """What remains to be written when the codes are."""
        return replace(self, codes=np.empty((0, 0, 0), np.uint8))

    def values(self) -> Float32:
        """`[rows, blocks, block]`"""
        return (self.codes.astype(np.float32) - self.zero_points[..., None]) * self.scales[..., None]


def nearest(rows: Float32, block: int) -> Blocks:
    """8 bits to the nearest code, zero in the middle: `[rows, inputs]`, inputs a multiple of `block`."""
    parts = rows.reshape(len(rows), -1, block)
    largest = np.abs(parts).max(-1) / np.float32(127)
    sizes = _kept(largest.max(-1))
    exponents = _covering(_divided(largest, sizes[:, None]))
    steps = _divided(parts, sizes[:, None, None]) / SHARES[exponents][..., None]
    codes = (np.clip(np.rint(steps), -127, 127) + 128).astype(np.uint8)
    return Blocks(codes, exponents, np.full_like(exponents, 128), sizes)


def rounded(
    rows: Float32, bits: int, block: int, priced: Sequence[Cost] = (), tried: Sequence[int] = SEARCHED
) -> Blocks:
    """Codes of `bits` bits with a zero point for each block: `[rows, inputs]`, inputs a multiple of `block`.

    Where costs are given, errors are compensated and descended on; elsewhere all inputs count alike. Of no
    row do the errors cost more than those of rounding to the nearest code, which is what `tried=COVERING`
    does.
    """
    work = _Work(rows, bits, block, tried)
    covered = 0
    for cost in priced:
        plain = _Work(rows, bits, block, COVERING)
        plain.round(cost.columns)
        work.compensate(cost)
        for _ in range(SWEEPS):
            work.descend(cost)
        work.take_cheaper(plain, cost)
        covered = cost.columns.stop
    work.round(slice(covered, rows.shape[1]))
    return work.result()


class _Work:
    """Rounding under way: columns first, so that one column of all rows is contiguous, in units of sizes."""

    def __init__(self, rows: Float32, bits: int, block: int, tried: Sequence[int]) -> None:
        self._top = np.float32(2**bits - 1)
        self._block = block
        self._tried = tried
        parts = rows.reshape(len(rows), -1, block)
        low, high = np.minimum(parts.min(-1), 0), np.maximum(parts.max(-1), 0)
        self._sizes = _kept(HEADROOM * (high / self._top - low / self._top).max(-1))
        self._wanted = np.ascontiguousarray(_divided(rows, self._sizes[:, None]).T)  # [columns, rows]
        self._left = np.zeros_like(self._wanted)
        shape = (parts.shape[1], len(rows))
        self._exponents = np.zeros(shape, np.uint8)
        self._zero_points = np.zeros(shape, np.float32)

    def blocks(self, columns: slice) -> Iterator[slice]:
        """Columns of each block."""
        starts = range(columns.start, columns.stop, self._block)
        return (slice(start, start + self._block) for start in starts)

    def result(self) -> Blocks:
        by_block = self._left.reshape(-1, self._block, len(self._sizes))
        steps = np.rint(by_block / SHARES[self._exponents][:, None]) + self._zero_points[:, None]
        return Blocks(
            np.ascontiguousarray(steps.astype(np.uint8).transpose(2, 0, 1)),
            np.ascontiguousarray(self._exponents.T),
            np.ascontiguousarray(self._zero_points.T.astype(np.uint8)),
            self._sizes,
        )

    def round(self, all_columns: slice) -> None:
        """Search and round blocks, each weight by itself."""
        for columns in self.blocks(all_columns):
            self._search(columns, self._wanted[columns], np.ones(self._block, np.float32))
            self._left[columns] = self._nearest(columns, self._wanted[columns])

    def take_cheaper(self, other: "_Work", cost: Cost) -> None:
        """Take over the rows whose errors in these columns cost less in other work on the same rows."""
        cheaper = other._costs(cost) < self._costs(cost)
        blocks = slice(cost.columns.start // self._block, cost.columns.stop // self._block)
        self._left[cost.columns, cheaper] = other._left[cost.columns, cheaper]
        self._exponents[blocks, cheaper] = other._exponents[blocks, cheaper]
        self._zero_points[blocks, cheaper] = other._zero_points[blocks, cheaper]

    def _costs(self, cost: Cost) -> Float32:
        """What the errors of each row cost, `[rows]`."""
        errors = self._wanted[cost.columns] - self._left[cost.columns]
        costs: Float32 = np.einsum("cr,cr->r", errors, cost.moment @ errors)
        return costs

    def compensate(self, cost: Cost) -> None:
        """Round columns in turn, each change of one made up for by those after it."""
        spread = cost.spread
        importance: Float32 = np.reciprocal(np.square(spread.diagonal()))  # once made up for
        wanted = self._wanted[cost.columns].copy()
        for columns in self.blocks(cost.columns):
            own = slice(columns.start - cost.columns.start, columns.stop - cost.columns.start)
            self._search(columns, wanted[own], importance[own])

            def step(j: int, value: Float32, columns: slice = columns, own: slice = own) -> Float32:
                left = self._nearest(columns, value)
                self._left[columns.start + j] = left
                error: Float32 = (value - left) / spread[own.start + j, own.start + j]
                return error

            errors = _in_turn(wanted[own], spread[own, own], step)
            wanted[own.stop :] -= spread[own, own.stop :].T @ errors

    def descend(self, cost: Cost) -> None:
        """Once over all blocks: fit the scale, then round each column for the errors that all others make."""
        residual = self._wanted[cost.columns] - self._left[cost.columns]
        for columns in self.blocks(cost.columns):
            own = slice(columns.start - cost.columns.start, columns.stop - cost.columns.start)
            moment = cost.moment[own, own]
            slope = cost.moment[own] @ residual  # of the cost, by these columns
            slope -= moment @ self._fit(columns, slope, moment)
            inverse = np.float32(1) / moment.diagonal()

            def step(j: int, value: Float32, columns: slice = columns, inverse: Float32 = inverse) -> Float32:
                before = self._left[columns.start + j]
                after = self._nearest(columns, before + value * inverse[j])
                change: Float32 = after - before
                self._left[columns.start + j] = after
                return change

            _in_turn(slope, moment, step)
            residual[own] = self._wanted[columns] - self._left[columns]

    def _fit(self, columns: slice, slope: Float32, moment: Float32) -> Float32:
        """Set the scales of a block to where the cost is least with these codes; what that changed."""
        index = columns.start // self._block
        shares = SHARES[self._exponents[index]]
        steps = np.rint(self._left[columns] / shares)
        curvature = (steps * (moment @ steps)).sum(0)
        better = shares + _divided((steps * slope).sum(0), curvature)
        exponents = np.where(better > 0, _exponents(np.rint, better), self._exponents[index])
        self._exponents[index] = exponents
        change: Float32 = steps * SHARES[self._exponents[index]] - self._left[columns]
        self._left[columns] += change
        return change

    def _search(self, columns: slice, values: Float32, importance: Float32) -> None:
        """Choose scales and zero points of a block for these values `[block, rows]`."""
        index = columns.start // self._block
        low, high = np.minimum(values.min(0), 0), np.maximum(values.max(0), 0)
        span = (high - low) / self._top
        self._zero_points[index] = np.clip(np.rint(_divided(-low, span)), 0, self._top)
        covering = _covering(span)
        least = np.full(len(span), np.inf, np.float32)
        best = covering
        for extra in self._tried:
            tried = np.minimum(covering, 255 - extra) + np.uint8(extra)
            self._exponents[index] = tried
            errors = self._nearest(columns, values) - values
            cost = importance @ np.square(errors, out=errors)
            better = cost < least
            best, least = np.where(better, tried, best), np.where(better, cost, least)
        self._exponents[index] = best

    def _nearest(self, columns: slice, values: Float32) -> Float32:
        """Values `[..., rows]` of one block as its codes can say them."""
        index = columns.start // self._block
        share, zero = SHARES[self._exponents[index]], self._zero_points[index]
        left: Float32 = values * (1 / share)
        np.rint(left, out=left)
        np.maximum(left, -zero, out=left)
        np.minimum(left, self._top - zero, out=left)
        left *= share
        return left


def _in_turn(waiting: Float32, coupling: Float32, step: Callable[[int, Float32], Float32]) -> Float32:
    """Call `step` for each column of a block; what it returns changes, times `coupling`, those that wait."""
    changes = np.empty_like(waiting)
    for start in range(0, len(waiting), TOGETHER):
        stop = start + TOGETHER
        for j in range(start, stop):
            changes[j] = step(j, waiting[j])
            waiting[j + 1 : stop] -= np.multiply.outer(coupling[j, j + 1 : stop], changes[j])
        waiting[stop:] -= coupling[start:stop, stop:].T @ changes[start:stop]
    return changes


def _kept(sizes: Float32) -> Float32:
    """Zero where the scales would be too small to have reciprocals, and with them all weights of the row."""
    return np.where(sizes < np.finfo(np.float32).smallest_normal / SHARES[-1], np.float32(0), sizes)


def _divided(values: Float32, by: Float32) -> Float32:
    """Zero where the divisor is."""
    return values * np.divide(1, by, out=np.zeros_like(by), where=by != 0)


def _covering(shares: Float32) -> UInt8:
    """Exponents of the least scales that are no smaller than these shares."""
    return _exponents(np.floor, shares)


def _exponents(towards: Callable[[Float32], Float32], shares: Float32) -> UInt8:
    logarithms = np.log2(np.maximum(shares, SHARES[-1]))
    return np.clip(towards(-STEPS * logarithms), 0, 255).astype(np.uint8)
