"""Inputs that differ in size are made alike, and what is found is what products say."""

from collections.abc import Iterator

import numpy as np

from sardonyx.export.checkpoint import Float32
from sardonyx.export.quantizers.w8a8 import W8A8
from sardonyx.export.smoothing import Smoothed, smoothed
from sardonyx.export.weights import Sample

RNG = np.random.default_rng(3)
WEIGHT = RNG.standard_normal((70, 64)).astype(np.float32)
EVEN = RNG.standard_normal((40, 64)).astype(np.float32)


def found(rows: Float32, weight: Float32 = WEIGHT, piece: int = 16) -> Smoothed:
    def pieces() -> Iterator[Float32]:
        return (weight[at : at + piece] for at in range(0, len(weight), piece))

    return smoothed(Sample(rows, np.abs(rows).max(0)), pieces, W8A8().dequantized)


def error(x: Float32, result: Smoothed, weight: Float32 = WEIGHT) -> float:
    """Of products, in float64, relative to their squares."""
    factors = np.ones(x.shape[1]) if result.factors is None else result.factors
    codes = np.clip(np.rint(x / factors / result.step), -128, 127) * result.step
    left = W8A8().dequantized((weight * factors).astype(np.float32)).astype(np.float64)
    exact = x.astype(np.float64) @ weight.T
    return float((((codes @ left.T - exact) ** 2).sum(1) / (exact**2).sum(1)).mean())


def test_the_error_is_that_of_products() -> None:
    result = found(EVEN)
    assert np.isclose(result.error, error(EVEN, result), rtol=1e-3)


def test_loud_inputs_drown_no_others() -> None:
    loud, weight = EVEN.copy(), WEIGHT.copy()
    loud[:, [3, 40]] *= 60
    weight[:, [3, 40]] /= 60
    result = found(loud, weight)
    assert result.factors is not None
    assert np.median(result.factors[[3, 40]]) > 10 * np.median(result.factors)
    plain = Smoothed(None, float(np.abs(loud).max() / 127), 0, 0)
    assert result.error < error(loud, plain, weight) / 100
    assert result.error < result.error_per_token / 100


def test_a_loud_token_is_better_off_with_a_step_of_its_own() -> None:
    loud = EVEN.copy()
    loud[0] *= 1000
    assert found(loud).error > 100 * found(loud).error_per_token


def test_nothing_seen_is_no_reason_to_fail() -> None:
    result = found(np.zeros((4, 64), np.float32))
    assert result.step > 0
    assert result.error == result.error_per_token == 0


def test_pieces_of_the_matrix_make_no_difference() -> None:
    whole, parts = found(EVEN, piece=70), found(EVEN, piece=7)
    assert whole.step == parts.step
    assert np.isclose(whole.error, parts.error, rtol=1e-4)
