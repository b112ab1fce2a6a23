"""Rounding against what it says of itself, row by row and column by column, in float64."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sardonyx.export import rounding
from sardonyx.export.checkpoint import Float32
from sardonyx.export.rounding import COVERING, SEARCHED, SHARES, Blocks, rounded
from sardonyx.export.rounding_cost import costs, inverted

TOP = 15


def moment_of(rng: np.random.Generator, inputs: int, seen: int = 400) -> Float32:
    """Of inputs that hang together, as those of a network do, some of them larger than others."""
    x = rng.standard_normal((seen, inputs)) @ rng.standard_normal((inputs, inputs)) / np.sqrt(inputs)
    x *= np.exp(rng.standard_normal(inputs))
    return (x.T @ x / seen).astype(np.float32)


def row_costs(rows: Float32, blocks: Blocks, moment: Any) -> Any:
    """error^T moment error of each row, in float64."""
    left = blocks.values().reshape(len(rows), -1).astype(np.float64)
    return np.einsum("ri,ij,rj->r", rows - left, moment, rows - left)


class SlowRow:
    """One row, rounded with nothing but loops."""

    def __init__(self, row: Float32, block: int) -> None:
        self.wanted = row.astype(np.float64)
        self.block = block
        spans = [self._span(self.wanted[at : at + block]) for at in range(0, len(row), block)]
        self.size = 2 * max(spans)
        self.left = np.zeros(len(row))

    def compensate(self, moment: Any) -> None:
        """Optimal brain surgeon: round a weight, take its error to all others, take it out, go on."""
        values, inverse = self.wanted.copy(), np.linalg.inv(moment)
        importance = self._importance(inverse)
        for at in range(len(values)):
            if at % self.block == 0:
                scale, zero = self._searched(slice(at, at + self.block), values, importance)
            self.left[at] = self._nearest(values[at], scale, zero)
            values -= (values[at] - self.left[at]) / inverse[at, at] * inverse[at]
            inverse = inverse - np.outer(inverse[:, at], inverse[at]) / inverse[at, at]
            inverse[at, at] = 1  # of no use any more, and zero

    @staticmethod
    def _importance(inverse: Any) -> Any:
        found = []
        for at in range(len(inverse)):
            found.append(1 / inverse[at, at])
            inverse = inverse - np.outer(inverse[:, at], inverse[at]) * found[-1]
        return np.array(found)

    def _searched(self, columns: slice, values: Any, importance: Any) -> tuple[float, float]:
        own = values[columns]
        span = self._span(own)
        zero = np.clip(np.rint(-min(own.min(), 0) / span), 0, TOP)
        covering = int(np.floor(-32 * np.log2(span / self.size)))
        tried = [self.size * float(SHARES[covering + extra]) for extra in SEARCHED]
        errors = [
            ((self._nearest(own, scale, zero) - own) ** 2 * importance[columns]).sum() for scale in tried
        ]
        return tried[int(np.argmin(errors))], zero

    @staticmethod
    def _span(values: Any) -> float:
        return float(max(values.max(), 0) - min(values.min(), 0)) / TOP

    @staticmethod
    def _nearest(value: Any, scale: float, zero: float) -> Any:
        return (np.clip(np.rint(value / scale) + zero, 0, TOP) - zero) * scale


@pytest.mark.parametrize("inputs", [32, 64, 160])
def test_compensation_is_the_slow_one(inputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "SWEEPS", 0)
    rng = np.random.default_rng(inputs)
    rows = rng.standard_normal((12, inputs)).astype(np.float32)
    (cost,) = costs([moment_of(rng, inputs)], 32)
    left = rounded(rows, 4, 32, [cost]).values().reshape(rows.shape)
    slow = []
    for row in rows:
        work = SlowRow(row, 32)
        work.compensate(cost.moment.astype(np.float64))
        slow.append(work.left)
    same = np.isclose(left, np.array(slow), rtol=1e-4, atol=1e-6).all(1)
    assert same.mean() > 0.7  # a float32 that falls on the other side of a half takes its row another way


@st.composite
def matrices(draw: st.DrawFn) -> tuple[Float32, list[Float32]]:
    """Rows of all sizes, and moments of some or all of their columns."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = draw(st.lists(st.integers(1, 3), max_size=2))
    inputs = 32 * (sum(counts) + draw(st.integers(0 if counts else 1, 2)))
    rows = rng.standard_normal((draw(st.integers(1, 8)), inputs))
    rows *= 10.0 ** draw(st.integers(-20, 20))
    rows *= np.where(rng.random(rows.shape) < draw(st.sampled_from([0.0, 0.03])), 50, 1)
    rows *= rng.random(rows.shape) < draw(st.sampled_from([1.0, 0.2]))
    seen = draw(st.sampled_from([1, 20, 500]))
    moments = [moment_of(rng, 32 * count, seen) * 10.0 ** draw(st.integers(-6, 6)) for count in counts]
    return rows.astype(np.float32), [moment.astype(np.float32) for moment in moments]


@given(matrices())
@settings(max_examples=100)
def test_no_row_is_worse_than_rounded_to_the_nearest(case: tuple[Float32, list[Float32]]) -> None:
    rows, moments = case
    priced = costs(moments, 32)
    columns = rows.shape[1]
    total = np.eye(columns)  # what was not measured counts alike
    for cost in priced:
        total[cost.columns, cost.columns] = cost.moment
    plain = row_costs(rows, rounded(rows, 4, 32, (), COVERING), total)
    assert np.all(row_costs(rows, rounded(rows, 4, 32, priced), total) <= plain * 1.001)


@given(matrices())
@settings(max_examples=100)
def test_each_step_makes_it_better_on_the_whole(case: tuple[Float32, list[Float32]]) -> None:
    rows, moments = case
    priced = costs(moments, 32)
    found = rounded(rows, 4, 32, priced)
    assert np.isfinite(found.values()).all()
    assert found.codes.max() <= TOP
    searched = rounded(rows, 4, 32)
    plain = rounded(rows, 4, 32, (), COVERING)
    everything = np.eye(rows.shape[1])
    assert np.all(row_costs(rows, searched, everything) <= row_costs(rows, plain, everything) * 1.001)


def test_compensation_and_descent_earn_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((64, 256)).astype(np.float32)
    (cost,) = costs([moment_of(rng, 256)], 32)

    def spent(blocks: Blocks) -> float:
        return float(row_costs(rows, blocks, cost.moment).sum())

    plain, searched = spent(rounded(rows, 4, 32, (), COVERING)), spent(rounded(rows, 4, 32))
    descended = spent(rounded(rows, 4, 32, [cost]))
    monkeypatch.setattr(rounding, "SWEEPS", 0)
    compensated = spent(rounded(rows, 4, 32, [cost]))
    assert descended < 0.9 * compensated < 0.9 * 0.6 * searched < 0.9 * 0.6 * plain


@pytest.mark.parametrize("size", [1, 5, 128, 129, 300])
def test_a_triangle_times_its_inverse_is_one(size: int) -> None:
    rng = np.random.default_rng(size)
    upper = np.triu(rng.standard_normal((size, size)) / size + np.eye(size)).astype(np.float32)
    assert np.allclose(inverted(upper) @ upper, np.eye(size), atol=1e-4)
    assert np.array_equal(inverted(upper), np.triu(inverted(upper)))


def test_the_spread_of_a_cost_is_the_root_of_its_inverse() -> None:
    (cost,) = costs([moment_of(np.random.default_rng(4), 90)], 32)
    assert cost.moment.shape == (96, 96)
    assert np.allclose(cost.spread.T @ cost.spread @ cost.moment, np.eye(96), atol=2e-3)


def test_inputs_that_were_always_zero_cost_little_but_something() -> None:
    (cost,) = costs([np.zeros((32, 32), np.float32)], 32)
    assert np.allclose(cost.moment, 0.01 * np.eye(32))
