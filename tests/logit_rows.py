"""Rows of logits for tests: strategies, obvious definitions, and a test of distributions."""

import math

import numpy as np
from hypothesis import strategies as st

from sardonyx.runtime.logits import Candidates, Row, Transform

# Quarters, so that ties are common and shifts are exact.
numbers = st.one_of(st.integers(-80, 80).map(lambda n: n / 4), st.just(-math.inf))
rows = st.lists(numbers, min_size=1, max_size=40).filter(lambda row: max(row) > -math.inf).map(np.float32)
shares = st.one_of(st.floats(0.01, 1), st.sampled_from([0.25, 0.5, 0.75, 1 - 1e-12]))


def everything(row: Row) -> Candidates:
    return Candidates(np.arange(len(row), dtype=np.int32), row)


def ranked(row: Row) -> list[int]:
    """Tokens by descending logit; of equals, the lowest first."""
    return sorted(range(len(row)), key=lambda token: (-row[token], token))


def kept(transform: Transform, row: Row) -> list[int]:
    return transform(everything(row)).ids.tolist()


def softmax(row: Row) -> list[float]:
    weights = [math.exp(value - max(row.tolist())) for value in row.tolist()]
    return [weight / math.fsum(weights) for weight in weights]


def log_softmax(row: Row) -> np.ndarray:
    """ln p, in float64."""
    below = row.astype(np.float64) - float(row.max())
    return below - math.log(np.exp(below).sum())


def entropy(probabilities: list[float]) -> float:
    return -math.fsum(p * math.log(p) for p in probabilities if p)


def fits(seen: np.ndarray, expected: np.ndarray) -> bool:
    """Chi-square at alpha = 1e-6 (quantile of Wilson and Hilferty 1931), and none seen where none is due."""
    seen, expected = seen.ravel(), expected.ravel() * seen.sum()
    due = expected > 0
    assert expected[due].min() >= 5
    statistic = float((((seen - expected) ** 2)[due] / expected[due]).sum())
    freedom = int(due.sum()) - 1
    quantile = freedom * (1 - 2 / (9 * freedom) + 4.753424 * math.sqrt(2 / (9 * freedom))) ** 3
    return statistic < quantile and not seen[~due].any()
