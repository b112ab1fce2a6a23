"""Each truncation against a slow definition, and the invariants of all."""

import math
from collections.abc import Callable
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from logit_rows import entropy, everything, kept, log_softmax, ranked, rows, shares, softmax
from sardonyx.runtime.logits import Row, Transform
from sardonyx.runtime.logits.candidates import ranking
from sardonyx.runtime.logits.temperature import greedy, temperature
from sardonyx.runtime.logits.truncation import (
    Ties,
    epsilon_cutoff,
    eta_cutoff,
    min_p,
    top_h,
    top_h_of_hundred,
    top_k,
    top_n_sigma,
    top_p,
    typical_p,
    xtc,
)

counts = st.integers(1, 45)


@given(rows)
def test_the_ranking_is_a_stable_sort(row: Row) -> None:
    assert ranking(row).tolist() == ranked(row)
    zeros = np.float32([0.0, -0.0, 1e-45, -0.0, 0.0])
    assert ranking(zeros).tolist() == [2, 0, 1, 3, 4]


# Truncations against their definitions


@given(rows, counts, st.sampled_from(["lowest", "all"]))
def test_top_k_keeps_the_k_largest_and_of_equals_the_lowest_ids_or_all(row: Row, k: int, ties: Ties) -> None:
    expected = ranked(row)[:k]
    if ties == "all":
        expected = [token for token in range(len(row)) if row[token] >= row[expected[-1]]]
    assert kept(top_k(k, ties), row) == sorted(expected)


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


@given(rows, st.floats(0.01, 0.999), st.sampled_from(["lowest", "all"]))
def test_typical_p_takes_what_surprises_as_much_as_can_be_expected(row: Row, mass: float, ties: Ties) -> None:
    p = softmax(row)
    deviation = [abs(-math.log(q) - entropy(p)) if q else math.inf for q in p]
    levels = sorted(level for level in {*deviation} if level < math.inf)
    assume(all(b - a > 1e-4 or b == a for a, b in pairwise(levels)))
    order = sorted(range(len(p)), key=lambda token: (deviation[token], token))
    reached = [math.fsum(p[token] for token in order[: count + 1]) for count in range(len(p))]
    assume(min(abs(total - mass) for total in reached) > 1e-9)
    expected = order[: 1 + next(count for count, total in enumerate(reached) if total >= mass)]
    if ties == "all":
        expected = [token for token in order if deviation[token] <= deviation[expected[-1]]]
    assert kept(typical_p(mass, ties), row) == sorted(expected)


def test_typical_p_of_a_uniform_row_keeps_the_share_and_may_drop_the_likeliest() -> None:
    assert len(kept(typical_p(0.25), np.zeros(10, np.float32))) == 3
    assert len(kept(typical_p(0.25, "all"), np.zeros(10, np.float32))) == 10
    row = np.log(np.float32([0.4] + [0.06] * 10))
    assert 0 not in kept(typical_p(0.5), row)


@given(rows, st.floats(0, 4))
def test_top_n_sigma_counts_deviations_of_what_is_possible(row: Row, n: float) -> None:
    possible = [value for value in row.tolist() if value > -math.inf]
    mean = math.fsum(possible) / len(possible)
    sigma = math.sqrt(math.fsum((value - mean) ** 2 for value in possible) / len(possible))
    edge = max(possible) - n * sigma
    assume(all(abs(value - edge) > 1e-9 or value == max(possible) for value in possible))
    assert kept(top_n_sigma(n), row) == [
        t for t, value in enumerate(row) if value >= min(edge, max(possible))
    ]


@given(rows, st.floats(0.1, 3), st.floats(0.2, 5))
def test_top_n_sigma_is_the_same_at_any_temperature(row: Row, n: float, degree: float) -> None:
    values = row[row > -math.inf].astype(np.float64)
    edge = values.max() - n * values.std()
    assume(np.abs(values - edge).min() > 1e-3)
    assert temperature(degree)(everything(row)).logits.dtype == np.float32
    assert kept(top_n_sigma(n), temperature(degree)(everything(row)).logits) == kept(top_n_sigma(n), row)


@given(rows, st.floats(1e-6, 0.999))
def test_cutoffs_keep_what_is_likely_enough(row: Row, epsilon: float) -> None:
    p = softmax(row)
    eta = min(epsilon, math.sqrt(epsilon) * math.exp(-entropy(p)))
    for cutoff, least in ((epsilon_cutoff(epsilon), epsilon), (eta_cutoff(epsilon), eta)):
        assume(all(abs(q - least) > 1e-6 * least for q in p))
        expected = [token for token, q in enumerate(p) if q >= least]
        assert kept(cutoff, row) == (expected or [t for t in range(len(p)) if row[t] == row.max()])
    assert {*kept(epsilon_cutoff(epsilon), row)} <= {*kept(eta_cutoff(epsilon), row)}


@given(rows, st.floats(0.01, 1))
def test_top_h_keeps_the_entropy_within_its_share(row: Row, share: float) -> None:
    p, order = softmax(row), [token for token in ranked(row) if row[token] > -math.inf]
    bound = share * entropy(p)
    left = []
    for count in range(1, len(order) + 1):
        total = math.fsum(p[token] for token in order[:count])
        left.append(entropy([p[token] / total for token in order[:count]]))
    assume(all(abs(h - bound) > 1e-9 for h in left))
    assert kept(top_h(share), row) == sorted(order[: max(1, sum(h <= bound for h in left))])


@given(st.integers(0, 99), st.floats(0.01, 0.99))
def test_top_h_of_transformers_sums_the_terms_of_a_hundred(seed: int, share: float) -> None:
    row = np.random.default_rng(seed).normal(0, 2, 150).astype(np.float32)
    order = ranked(row)[:100]
    p = softmax(row[order])
    sums = np.cumsum([-q * math.log(q) for q in p])
    assume(np.abs(sums - share * entropy(p)).min() > 1e-6)
    count = max(1, int((sums <= share * entropy(p)).sum()))
    assert kept(top_h_of_hundred(share), row) == sorted(order[:count])


@given(rows, st.floats(0.01, 1))
def test_xtc_leaves_the_least_of_the_top_choices(row: Row, threshold: float) -> None:
    p = softmax(row)
    assume(all(abs(q - threshold) > 1e-6 * threshold for q in p))
    top = [token for token in ranked(row) if p[token] >= threshold]
    assert kept(xtc(threshold), row) == [token for token in range(len(p)) if token not in top[:-1]]
    if threshold > 0.5:
        assert kept(xtc(threshold), row) == [*range(len(p))]


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("mass", [0.1, 0.9, 0.999])
def test_typical_p_sorts_no_less_than_it_must_on_a_vocabulary(spread: float, mass: float) -> None:
    """What is kept reaches the mass, would not without its farthest, and nothing nearer is left out."""
    row = np.random.default_rng(3).normal(0, spread, 20_000).astype(np.float32)
    logarithms = log_softmax(row)
    p = np.exp(logarithms)
    away = np.abs(-logarithms + float(p @ logarithms))
    ids = kept(typical_p(mass), row)
    left = np.setdiff1d(np.arange(len(row)), ids)
    assert p[ids].sum() >= mass * (1 - 1e-6)
    assert p[ids].sum() - p[ids[int(away[ids].argmax())]] < mass * (1 + 1e-6)
    if len(left):
        assert away[ids].max() <= away[left].min() + 2e-6


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_top_h_sorts_no_less_than_it_must_on_a_vocabulary(spread: float, share: float) -> None:
    row = np.random.default_rng(3).normal(0, spread, 20_000).astype(np.float32)
    order = np.array(ranked(row))
    logarithms = log_softmax(row)[order]
    p = np.exp(logarithms)
    entropies = np.log(np.cumsum(p)) - np.cumsum(p * logarithms) / np.cumsum(p)
    count = len(kept(top_h(share), row))
    assert sorted(order[:count].tolist()) == kept(top_h(share), row)
    bound = -share * float(p @ logarithms)
    assert count == 1 or entropies[count - 1] <= bound + 1e-6
    assert count == len(row) or entropies[count] > bound - 1e-6


# Invariants of every truncation. (a) Something stays, with the likeliest in it but for typical_p and XTC; (b)
# what stays is unchanged; (c) twice is once, where that holds; (d) names of tokens and (e) shifts do not
# matter. (f) Rows do not know of each other: test_algorithms.py runs all beside all. (g) What is no
# distribution raises and (h) off is the identity: test_pipeline.py.


def odd(amount: float) -> float:
    """A share that no simple row meets exactly, where rounding would decide."""
    return 0.0123 + 0.9753 * amount


TRUNCATIONS: dict[str, Callable[[float], Transform]] = {
    "top_k": lambda amount: top_k(1 + int(30 * amount)),
    "top_k, all ties": lambda amount: top_k(1 + int(30 * amount), "all"),
    "top_p": lambda amount: top_p(max(amount, 0.01)),
    "min_p": lambda amount: min_p(max(amount, 1e-6)),
    "top_n_sigma": lambda amount: top_n_sigma(3 * odd(amount)),
    "epsilon_cutoff": lambda amount: epsilon_cutoff(odd(amount) / 2),
    "eta_cutoff": lambda amount: eta_cutoff(odd(amount) / 2),
    "top_h": lambda amount: top_h(odd(amount)),
    "top_h_of_hundred": lambda amount: top_h_of_hundred(odd(amount)),
    "greedy": lambda _: greedy,
    "typical_p": lambda amount: typical_p(odd(amount)),
    "xtc": lambda amount: xtc(odd(amount)),
}
KEEP_THE_LIKELIEST = [name for name in TRUNCATIONS if name not in ("typical_p", "xtc")]
truncations = pytest.mark.parametrize("name", TRUNCATIONS)
amounts = st.floats(0, 1)


@truncations
@given(rows, amounts)
def test_what_stays_is_something_and_unchanged(name: str, row: Row, amount: float) -> None:
    before = row.copy()
    ids, logits = TRUNCATIONS[name](amount)(everything(row))
    assert (logits > -math.inf).any()
    assert np.all(np.diff(ids) > 0)
    np.testing.assert_array_equal(logits, row[ids])
    np.testing.assert_array_equal(row, before)


@pytest.mark.parametrize("name", KEEP_THE_LIKELIEST)
@given(rows, amounts)
def test_the_likeliest_stays(name: str, row: Row, amount: float) -> None:
    assert ranked(row)[0] in kept(TRUNCATIONS[name](amount), row)


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


@pytest.mark.parametrize("name", ["top_k", "top_k, all ties", "min_p", "greedy"])
@given(rows, amounts)
def test_twice_is_once(name: str, row: Row, amount: float) -> None:
    transform = TRUNCATIONS[name](amount)
    once = transform(everything(row))
    np.testing.assert_array_equal(transform(once).ids, once.ids)


@pytest.mark.parametrize("name", ["top_k", "top_p", "top_n_sigma", "top_h", "top_h_of_hundred"])
@given(rows, amounts, amounts)
def test_more_keeps_more(name: str, row: Row, one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert {*kept(TRUNCATIONS[name](less), row)} <= {*kept(TRUNCATIONS[name](more), row)}
