"""Each truncation against a slow definition, the invariants of all, and the draw against its distribution."""

import math
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sardonyx.runtime import logits as module
from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.logits import (
    LOWEST,
    Candidates,
    Row,
    Transform,
    draw,
    greedy,
    make_picker,
    min_p,
    noise_key,
    pipeline,
    repetition_penalty,
    temperature,
    top_k,
    top_p,
    uniform,
)
from sardonyx.runtime.params import SamplingParams

# Quarters, so that ties are common and shifts are exact.
numbers = st.one_of(st.integers(-80, 80).map(lambda n: n / 4), st.just(-math.inf))
rows = st.lists(numbers, min_size=1, max_size=40).filter(lambda row: max(row) > -math.inf).map(np.float32)
counts = st.integers(1, 45)
shares = st.one_of(st.floats(0.01, 1), st.sampled_from([0.25, 0.5, 0.75, 1 - 1e-12]))


def everything(row: Row) -> Candidates:
    return Candidates(np.arange(len(row), dtype=np.int32), row)


def ranked(row: Row) -> list[int]:
    return sorted(range(len(row)), key=lambda token: (-row[token], token))


def kept(transform: Transform, row: Row) -> list[int]:
    return transform(everything(row)).ids.tolist()


# Truncations against their definitions


@given(rows, counts)
def test_top_k_keeps_the_k_largest_and_of_equals_the_lowest_ids(row: Row, k: int) -> None:
    assert kept(top_k(k), row) == sorted(ranked(row)[:k])


def full_sort_top_p(row: Row, mass: float) -> list[int]:
    weights = np.exp(row - row.max())
    order = ranked(row)
    reached = np.cumsum(weights[order], dtype=np.float64)
    enough = mass * weights.sum(dtype=np.float64)
    count = next((place + 1 for place, weight in enumerate(reached) if weight >= enough), len(order))
    return sorted(order[:count])


@given(rows, shares)
def test_top_p_is_what_sorting_everything_gives(row: Row, mass: float) -> None:
    assert kept(top_p(mass), row) == full_sort_top_p(row, mass)


@given(rows, shares)
def test_top_p_reaches_the_mass_and_not_without_its_last(row: Row, mass: float) -> None:
    weights = [math.exp(value - max(row)) for value in row]
    ids = sorted(kept(top_p(mass), row), key=lambda token: (-row[token], token))
    total = math.fsum(weights)
    assert math.fsum(weights[token] for token in ids) >= mass * total * (1 - 1e-6)
    assert math.fsum(weights[token] for token in ids[:-1]) < mass * total * (1 + 1e-6)


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("mass", [0.1, 0.9, 0.999, 0.9999999])
def test_top_p_sorts_no_less_than_it_must_on_a_vocabulary(spread: float, mass: float) -> None:
    row = np.random.default_rng(3).normal(0, spread, 20_000).astype(np.float32)
    assert kept(top_p(mass), row) == full_sort_top_p(row, mass)


@given(rows, st.integers(0, 40), st.floats(0.001, 1))
def test_min_p_in_logits_is_min_p_in_probabilities(row: Row, quarters: int, nudge: float) -> None:
    fraction = math.exp(-quarters / 4 - 0.2 * nudge)  # between two quarters, clear of rounding
    weights = np.exp(row.astype(np.float64) - row.max())
    assert kept(min_p(fraction), row) == np.flatnonzero(weights >= fraction).tolist()


@given(rows)
def test_min_p_of_one_keeps_the_ties_at_the_top(row: Row) -> None:
    assert kept(min_p(1.0), row) == np.flatnonzero(row == row.max()).tolist()


@given(rows)
def test_greedy_is_the_first_of_the_largest(row: Row) -> None:
    assert kept(greedy, row) == ranked(row)[:1] == kept(top_k(1), row)


# Invariants of every truncation

TRUNCATIONS: dict[str, Callable[[float], Transform]] = {
    "top_k": lambda amount: top_k(1 + int(30 * amount)),
    "top_p": lambda amount: top_p(max(amount, 0.01)),
    "min_p": lambda amount: min_p(max(amount, 1e-6)),
    "greedy": lambda _: greedy,
}
truncations = pytest.mark.parametrize("name", TRUNCATIONS)
amounts = st.floats(0, 1)


@truncations
@given(rows, amounts)
def test_the_argmax_stays_and_what_stays_is_unchanged(name: str, row: Row, amount: float) -> None:
    before = row.copy()
    ids, logits = TRUNCATIONS[name](amount)(everything(row))
    assert ranked(row)[0] in ids
    assert np.all(np.diff(ids) > 0)
    np.testing.assert_array_equal(logits, row[ids])
    np.testing.assert_array_equal(row, before)


@truncations
@given(rows, amounts, st.integers(-50, 50))
def test_a_shift_of_all_logits_changes_nothing(name: str, row: Row, amount: float, shift: int) -> None:
    transform = TRUNCATIONS[name](amount)
    assert kept(transform, row + np.float32(shift)) == kept(transform, row)


@truncations
@given(rows.filter(lambda row: len({*row.tolist()}) == len(row)), amounts, st.randoms())
def test_names_of_tokens_do_not_matter(name: str, row: Row, amount: float, random: Random) -> None:
    transform = TRUNCATIONS[name](amount)
    order = list(range(len(row)))
    random.shuffle(order)
    assert sorted(order[place] for place in kept(transform, row[order])) == kept(transform, row)


@pytest.mark.parametrize("name", ["top_k", "min_p", "greedy"])
@given(rows, amounts)
def test_twice_is_once(name: str, row: Row, amount: float) -> None:
    transform = TRUNCATIONS[name](amount)
    once = transform(everything(row))
    np.testing.assert_array_equal(transform(once).ids, once.ids)


@given(rows)
def test_off_is_the_identity(row: Row) -> None:
    ids, logits = pipeline(SamplingParams(temperature=1))([], row)
    np.testing.assert_array_equal(ids, np.arange(len(row)))
    np.testing.assert_array_equal(logits, row)


@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(temperature=0.7, top_k=2, top_p=0.5, min_p=0.1)]
)
@pytest.mark.parametrize("row", [[0, math.nan, 1], [-math.inf] * 3, [0, math.inf, 1], [math.nan] * 3])
def test_what_is_no_distribution_is_an_error(params: SamplingParams, row: list[float]) -> None:
    with pytest.raises(ArtifactError, match="logits after 5 tokens are no distribution"):
        make_picker(params, 0)([1, 2, 0, 1, 2], np.float32(row), 5)


# Temperature and penalty


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


@given(rows, st.lists(st.integers(0, 10**6), max_size=60), st.floats(0.1, 10))
@example(np.float32([1, -1]), [0, 1, 1], 1e-38)
@example(np.float32([1, -9]), [0, 1, 1], 1e38)
def test_a_seen_token_is_penalised_once(row: Row, history: list[int], penalty: float) -> None:
    sequence = [token % len(row) for token in history]
    before = row.copy()
    got = repetition_penalty(penalty)(sequence, row)
    np.testing.assert_array_equal(row, before)
    for token, value in enumerate(row.tolist()):
        new = (value / penalty if value > 0 else value * penalty) if token in sequence else value
        assert got[token] == np.float32(new if math.isinf(value) else np.clip(new, LOWEST, -LOWEST))


def test_steps_come_in_the_order_of_hugging_face() -> None:
    # Temperature before min-p: at T = 2 the second token is e^-1 as likely, so 0.3 keeps it.
    shape = pipeline(SamplingParams(temperature=2, min_p=0.3))
    assert shape([], np.float32([2, 0, -9])).ids.tolist() == [0, 1]
    # Top-k before top-p: the second has 0.27 of two tokens' mass, less of all.
    shape = pipeline(SamplingParams(temperature=1, top_k=2, top_p=0.72))
    assert shape([], np.float32([1, 0, 0, 0])).ids.tolist() == [0]
    # The penalty before all.
    assert make_picker(SamplingParams(repetition_penalty=3), 0)([0], np.float32([2, 1]), 1) == 1


@given(rows, st.integers(0, 9), st.floats(0.1, 1), st.floats(0, 1))
def test_greedy_needs_no_truncation(row: Row, k: int, mass: float, fraction: float) -> None:
    params = SamplingParams(temperature=0, top_k=k, top_p=mass, min_p=fraction)
    assert make_picker(params, 0)([], row, 0) == ranked(row)[0]


# Noise and the draw


def test_the_noise_is_splitmix64() -> None:
    """The published outputs for state 1234567. A seed must keep its meaning from version to version."""
    outputs = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    expected = [((output >> 12) + 0.5) * 2.0**-52 for output in outputs]
    assert uniform(np.arange(4, dtype=np.int32), 1234567).tolist() == expected
    assert noise_key(42, 7) == 5152897204343404489
    assert noise_key(42 - 2**64, 7 + 2**64) == noise_key(42, 7)


@given(st.integers(), st.integers(0, 2**40), st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20))
def test_noise_lies_between_0_and_1_and_does_not_depend_on_company(
    seed: int, position: int, ids: list[int]
) -> None:
    key = noise_key(seed, position)
    u = uniform(np.array(ids, np.int32), key)
    assert np.all((u > 0) & (u < 1))
    assert u.tolist() == [uniform(np.array([token], np.int32), key)[0] for token in ids]


@given(rows, st.integers(0, 2**64), st.integers(0, 2**20))
def test_the_draw_is_the_argmax_of_logit_plus_gumbel_noise(row: Row, seed: int, position: int) -> None:
    u = uniform(np.arange(len(row), dtype=np.int32), noise_key(seed, position))
    assert draw(everything(row), seed, position) == np.argmax(row - np.log(-np.log(u)))


@pytest.mark.parametrize("spread", [0.01, 1, 5, 60])
def test_heats_do_not_change_the_winner(spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    row = np.random.default_rng(0).normal(0, spread, 5000).astype(np.float32)
    row[1000:2500] = -math.inf  # some heats are all masked
    alone = [draw(everything(row), seed, 3) for seed in range(100)]
    monkeypatch.setattr(module, "HEAT", 512)
    assert [draw(everything(row), seed, 3) for seed in range(100)] == alone
    assert not {*alone} & {*range(1000, 2500)}


@given(rows, st.integers(0, 10**6), amounts, amounts)
def test_cutting_off_losers_does_not_change_the_winner(
    row: Row, seed: int, share: float, fraction: float
) -> None:
    """Noise couples all truncations: a token that wins among all wins among any that it is kept with."""
    winner = draw(everything(row), seed, 11)
    for transform in (top_p(max(share, 0.01)), min_p(max(fraction, 1e-6)), top_k(5)):
        left = transform(everything(row))
        assert winner not in left.ids or draw(left, seed, 11) == winner


# The distribution of what is picked

DRAWS = 100_000
ROW = np.float32([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -6.0])
PARAMS = SamplingParams(temperature=0.8, top_k=6, top_p=0.9)


def probabilities(row: Row, degree: float, ids: list[int]) -> np.ndarray:
    """Softmax at a temperature over the kept ids, zero elsewhere, `[vocab]`."""
    weights = np.zeros(len(row))
    weights[ids] = np.exp(row[ids].astype(np.float64) / degree)
    return weights / weights.sum()


def fits(seen: np.ndarray, expected: np.ndarray) -> bool:
    """Chi-square at alpha = 1e-6 (quantile of Wilson and Hilferty 1931), and none seen where none is due."""
    seen, expected = seen.ravel(), expected.ravel() * seen.sum()
    due = expected > 0
    assert expected[due].min() >= 5
    statistic = float((((seen - expected) ** 2)[due] / expected[due]).sum())
    freedom = int(due.sum()) - 1
    quantile = freedom * (1 - 2 / (9 * freedom) + 4.753424 * math.sqrt(2 / (9 * freedom))) ** 3
    return statistic < quantile and not seen[~due].any()


@pytest.fixture(scope="module")
def picked() -> np.ndarray:
    """Tokens at successive positions under one seed, `[draws]`."""
    pick = make_picker(PARAMS, 1234)
    return np.array([pick([], ROW, position) for position in range(DRAWS)])


def test_positions_are_drawn_from_the_distribution(picked: np.ndarray) -> None:
    seen = np.bincount(picked, minlength=len(ROW))
    assert fits(seen, probabilities(ROW, 0.8, [0, 1, 2, 3]))
    assert not fits(
        seen, probabilities(ROW, 0.84, [0, 1, 2, 3])
    )  # power: each of these is wrong, and found to be
    assert not fits(seen, probabilities(ROW, 0.8, [0, 1, 2, 3, 4]))
    assert not fits(seen, probabilities(ROW, 0.8, [0, 1, 2]))


@pytest.mark.parametrize("lag", [1, 2, 64])
def test_positions_are_independent(picked: np.ndarray, lag: int) -> None:
    p = probabilities(ROW, 0.8, [0, 1, 2, 3])
    pairs = np.bincount(picked[:-lag] * len(p) + picked[lag:], minlength=len(p) ** 2)
    assert fits(pairs, np.outer(p, p))
    sticky = np.where(np.random.default_rng(0).random(DRAWS) < 0.03, np.roll(picked, lag), picked)
    assert not fits(np.bincount(sticky[:-lag] * len(p) + sticky[lag:], minlength=len(p) ** 2), np.outer(p, p))


def test_seeds_are_drawn_from_the_distribution() -> None:
    cut = everything(ROW)
    seen = np.bincount([draw(cut, seed, 5) for seed in range(DRAWS)], minlength=len(ROW))
    expected = probabilities(ROW, 1.0, [*range(8)])
    assert fits(seen, expected)
    assert not fits(seen, probabilities(ROW, 1.04, [*range(8)]))


def test_a_seed_repeats_itself_and_another_does_not() -> None:
    one, again, other = (make_picker(PARAMS, seed) for seed in (1, 1, 2))
    first = [one([], ROW, position) for position in range(200)]
    assert first == [again([], ROW, position) for position in range(200)]
    assert first != [other([], ROW, position) for position in range(200)]
