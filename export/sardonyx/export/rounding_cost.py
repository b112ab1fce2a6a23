"""What errors in weights cost, by what the weights multiply, and how an error is best made up for.

The cost is the mean square of the errors in products, as far as a text of some thousand tokens shows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sardonyx.export.checkpoint import Float32

SHRINKAGE = np.float32(0.2)
"""Share of the correlations between inputs that is put down to chance in a text of some thousand tokens."""

DAMPING = np.float32(0.01)
"""Added to each input's moment, in mean moments: errors are not to be hidden where nothing was seen."""

INVERTED = 128
"""Columns up to which a triangle is inverted in one piece."""


@dataclass(frozen=True)
class Cost:
    """What errors in a range of columns cost: error^T `moment` error, for each row."""

    columns: slice
    moment: Float32
    """Shrunk and damped, `[columns, columns]`."""
    spread: Float32
    """Upper triangular U with U^T U the inverse of the moment: how an error is best made up for."""


def costs(moment: Sequence[Float32], block: int) -> list[Cost]:
    """The costs that squares of second moments along the diagonal stand for, filled up to whole blocks."""
    padded = [np.pad(square, (0, -len(square) % block)) for square in moment]
    starts = np.cumsum([0, *map(len, padded)]).tolist()
    return [_cost(slice(*pair), square) for *pair, square in zip(starts, starts[1:], padded, strict=False)]


def _cost(columns: slice, square: Float32) -> Cost:
    diagonal = square.diagonal()
    mean = diagonal.sum() / max(1, np.count_nonzero(diagonal))
    moment = square * ((1 - SHRINKAGE) / (mean or 1))
    # An input that never was anything but zero, or is not there, has the damping for its only cost.
    np.fill_diagonal(moment, diagonal / (mean or 1) + DAMPING)
    norm = np.sqrt(moment.diagonal())
    # The correlation matrix has no eigenvalue below about SHRINKAGE: float32 is enough for it. Its factor
    # M M^T with M upper triangular is Cholesky's read from the other end.
    upper = np.linalg.cholesky((moment / norm[:, None] / norm)[::-1, ::-1])[::-1, ::-1]
    return Cost(columns, moment, (inverted(upper) / norm).astype(np.float32, copy=False))


def inverted(upper: Float32) -> Float32:
    """The inverse of an upper triangle, by halves: products are many times as quick as a solver."""
    if len(upper) <= INVERTED:
        return np.triu(np.linalg.inv(upper)).astype(np.float32, copy=False)
    half = len(upper) // 2
    first, last = inverted(upper[:half, :half]), inverted(upper[half:, half:])
    inverse = np.zeros_like(upper)
    inverse[:half, :half], inverse[half:, half:] = first, last
    inverse[:half, half:] = -first @ (upper[:half, half:] @ last)
    return inverse
