"""Rules that learn from what was picked reach what they aim at, and remember no more than they should."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logit_rows import everything, log_softmax, rows, softmax
from sardonyx.runtime.logits import Row, Setting
from sardonyx.runtime.logits.feedback import AdaptiveP, Course, Mirostat, zipf_count, zipf_exponent
from sardonyx.runtime.logits.pipeline import Picker
from sardonyx.runtime.params import SamplingParams

VOCAB = 2000
STEPS = 3000


def zipf_row(seed: int, exponent: float = 1.1) -> Row:
    """A noisy Zipf law, its tokens in any order."""
    random = np.random.default_rng(seed)
    row = -exponent * np.log(np.arange(1, VOCAB + 1)) + random.normal(0, 0.3, VOCAB)
    return random.permutation(row).astype(np.float32)


def surprises(params: SamplingParams) -> tuple[np.ndarray, np.ndarray]:
    """-log2 p of tokens picked one after another: under the full distribution, and under what was left."""
    picker = Picker(params, 5, Setting(0))
    full, kept = [], []
    for position in range(STEPS):
        row = zipf_row(position % 50)
        candidates = picker.shaped([], row, position)
        token = picker([], row, position)
        full.append(-log_softmax(row)[token] / math.log(2))
        kept.append(-log_softmax(candidates.logits)[candidates.ids.tolist().index(token)] / math.log(2))
    return np.array(full[200:]), np.array(kept[200:])


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tau", [3.0, 5.0])
def test_mirostat_holds_the_surprise_that_its_profile_measures(version: int, tau: float) -> None:
    for profile, measured in (("openai", 0), ("llama.cpp", 1)):
        found = surprises(SamplingParams(temperature=1, mirostat=version, mirostat_tau=tau, profile=profile))
        assert found[measured].mean() == pytest.approx(tau, abs=0.1)
        assert abs(found[1 - measured].mean() - tau) > 0.1  # power: the other measure is another


@given(st.floats(0.3, 3), st.integers(120, 5000))
def test_zipf_is_recognised(exponent: float, vocab: int) -> None:
    logarithms = -exponent * np.log(np.arange(1, vocab + 1))
    assert zipf_exponent(logarithms[:100]) == pytest.approx(exponent)


@pytest.mark.parametrize("exponent", [0.5, 0.999999, 1.0, 1.000001, 1.5])
def test_the_count_has_no_hole_where_the_exponent_is_one(exponent: float) -> None:
    count = zipf_count(-exponent * np.log(np.arange(1, 101)), 5.0, 50_000)
    e = exponent - 1
    share = e / (1 - 50_000**-e) if e else 1 / math.log(50_000)
    assert count == pytest.approx((share * 2**5) ** (1 / exponent), abs=1)


@given(rows, st.floats(0.1, 20), st.sampled_from([1, 2]))
def test_mirostat_keeps_the_likeliest_whatever_the_row(row: Row, tau: float, version: int) -> None:
    kept = Mirostat(version, tau, 0.1, "full").shape(everything(row), 0)
    assert row.argmax() in kept.ids
    np.testing.assert_array_equal(kept.logits, row[kept.ids])


@given(rows, st.floats(0.1, 12))
def test_mirostat_2_keeps_what_surprises_no_more_than_mu(row: Row, tau: float) -> None:
    surprise = [-math.log2(p) if p else math.inf for p in softmax(row)]
    kept = Mirostat(2, tau, 0.1, "full").shape(everything(row), 0).ids.tolist()
    expected = [t for t, s in enumerate(surprise) if s <= 2 * tau or s == min(surprise)]
    near = {t for t, s in enumerate(surprise) if abs(s - 2 * tau) < 1e-6}
    assert {*kept} - near == {*expected} - near


def test_mirostat_learns_the_excess_of_the_surprise() -> None:
    rule = Mirostat(2, 1.0, 0.5, "full")
    row = np.log(np.float32([0.5, 0.26, 0.12, 0.12]))
    assert rule.shape(everything(row), 4).ids.tolist() == [0, 1]  # mu = 2 bits
    rule.learn(1)  # nearly 2 bits: mu falls to nearly 1.5
    assert rule.shape(everything(row), 5).ids.tolist() == [0]
    rule.learn(0)  # 1 bit: mu stays
    assert rule.shape(everything(row), 6).ids.tolist() == [0]
    assert rule.shape(everything(row), 5).ids.tolist() == [0]  # back at 5, mu is as it was there
    assert rule.shape(everything(row), 4).ids.tolist() == [0, 1]


PARAMS = [
    SamplingParams(temperature=1, mirostat=1),
    SamplingParams(temperature=1, mirostat=2, mirostat_tau=2.0, mirostat_eta=0.3),
    SamplingParams(temperature=1, min_p=0.01, adaptive_target=0.4),
]


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_coming_back_finds_the_state_that_was_there(params: SamplingParams) -> None:
    """Drafts are picked along, rejected, and picked anew: as if they had never been."""
    straight, drafting = Picker(params, 3), Picker(params, 3)
    picked = [straight([], zipf_row(position), position) for position in range(10, 60)]
    again = []
    for position in range(10, 60):
        for draft in range(position % 4):
            drafting([], zipf_row(1000 + position + draft), position + draft)
        again.append(drafting([], zipf_row(position), position))
    assert again == picked


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40))
def test_a_course_is_a_list_that_forgets(moves: list[tuple[int, bool]]) -> None:
    course, states = Course("first"), ["first"]
    course.at(100)
    for number, (back, learns) in enumerate(moves):
        place = max(0, len(states) - 1 - back)
        del states[place + 1 :]
        assert course.at(100 + place) == states[-1]
        if learns:
            states.append(f"after {number}")
            course.then(states[-1])
    assert course.at(7) == "first"  # an earlier text begins anew


def test_a_place_that_was_never_reached_has_no_state() -> None:
    course = Course(0)
    course.at(3)
    with pytest.raises(IndexError):
        course.at(5)


# Adaptive-p


@given(rows, st.floats(0, 1))
def test_adaptive_p_prefers_the_probability_it_aims_at(row: Row, target: float) -> None:
    shaped = AdaptiveP(target, 0.9).shape(everything(row), 0)
    distance = [abs(p - target) / 0.3 for p in softmax(row)]
    expected = [5 - 10 * d * d / (1 + d) if z > -math.inf else z for d, z in zip(distance, row, strict=True)]
    np.testing.assert_allclose(shaped.logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", [0.2, 0.5])
def test_adaptive_p_comes_near_its_target_on_average(target: float) -> None:
    """On rows that offer all probabilities. Without feedback it comes half as near, or less."""
    random = np.random.default_rng(1)
    aiming = SamplingParams(temperature=1, adaptive_target=target)
    pickers = [Picker(aiming, 1), Picker(SamplingParams(temperature=1), 1)]
    picked = np.zeros((2, 4000))
    for position in range(4000):
        row = random.normal(0, 1.5, 8).astype(np.float32)
        picked[:, position] = [softmax(row)[picker([], row, position)] for picker in pickers]
    away, away_without = np.abs(picked.mean(axis=1) - target)
    assert away < 0.05
    assert 2 * away < away_without
