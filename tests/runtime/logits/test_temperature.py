"""Temperature against its definition, up to the ends of float32."""

import math

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from logit_rows import entropy, everything, kept, ranked, rows, softmax
from sardonyx.runtime.logits import Row, make_picker
from sardonyx.runtime.logits.temperature import dynamic_temperature, temperature
from sardonyx.runtime.params import SamplingParams


@given(rows, st.floats(0.01, 100))
def test_temperature_is_softmax_of_the_quotient(row: Row, degree: float) -> None:
    ids, logits = temperature(degree)(everything(row))
    assert len(ids) == len(row)
    expected = (row.astype(np.float64) - row.max()) / degree
    np.testing.assert_allclose(logits, expected, rtol=1e-6)


@given(rows, st.sampled_from([1e-320, 1e-300, 1e-40, 1e-30, 1e-10]), st.integers(0, 99))
def test_a_tiny_temperature_is_greedy_up_to_ties(row: Row, degree: float, seed: int) -> None:
    pick = make_picker(SamplingParams(temperature=degree, top_p=0.9, min_p=0.1), seed)
    assert row[pick([], row, 7)] == row.max()


@given(rows)
def test_a_huge_temperature_is_uniform(row: Row) -> None:
    logits = temperature(1e300)(everything(row)).logits
    assert logits[row > -math.inf].min() > -1e-30
    assert len(logits) == len(row)


@given(rows, st.floats(0.3, 3), st.floats(0.1, 5))
def test_more_temperature_is_more_entropy_in_the_same_order(row: Row, degree: float, more: float) -> None:
    cold, warm = (temperature(t)(everything(row)).logits for t in (degree, degree + more))
    assert ranked(warm) == ranked(cold)
    assert entropy(softmax(warm)) >= entropy(softmax(cold)) - 1e-6


@given(rows, st.floats(0, 3), st.floats(0.1, 3), st.floats(0.2, 4))
@example(np.array([-15.5, 18, -18.5], np.float32), 0.0, 1.0, 1.0)
def test_dynamic_temperature_follows_the_entropy(
    row: Row, degree: float, reach: float, exponent: float
) -> None:
    possible = sum(row > -math.inf)
    lowest, highest = max(0.0, degree - reach), degree + reach
    logits = dynamic_temperature(degree, reach, exponent)(everything(row)).logits
    if possible == 1:
        np.testing.assert_array_equal(logits, row)
        return
    share = min(1.0, entropy(softmax(row)) / math.log(possible))
    chosen = lowest + (highest - lowest) * share**exponent
    with np.errstate(over="ignore"):  # minus infinity, where float32 ends
        expected = ((row.astype(np.float64) - row.max()) / chosen).astype(np.float32)
    # an entropy of nearly nothing has few digits in float32, but then no other token has a share that counts
    np.testing.assert_allclose(np.maximum(logits, -200), np.maximum(expected, -200), rtol=1e-4)


def test_dynamic_temperature_is_highest_for_a_uniform_row_and_lowest_for_a_certain_one() -> None:
    uniform = np.float32([2, 2, 2, -math.inf])
    assert dynamic_temperature(1, 0.5, 1)(everything(uniform)).logits.tolist() == [0, 0, 0, -math.inf]
    certain = np.float32([0, -300])
    assert dynamic_temperature(1, 0.5, 1)(everything(certain)).logits.tolist() == [0, -600]
    assert kept(dynamic_temperature(0.5, 0.5, 1), certain) == [0]
    assert kept(dynamic_temperature(0, 0.5, 1), np.float32([0, -1e30])) == [0]  # down to 0, which is greedy
