"""The steps of a request together: their order, the distribution of what is picked, what a picker keeps."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logit_rows import fits, ranked, rows, softmax
from sardonyx.runtime.errors import ArtifactError, RequestError
from sardonyx.runtime.logits import LogprobLog, Row, Setting, make_picker, pipeline
from sardonyx.runtime.logits.noise import coin
from sardonyx.runtime.params import SamplingParams

DRAWS = 100_000
ROW = np.float32([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -6.0])
PARAMS = SamplingParams(temperature=0.8, top_k=6, top_p=0.9)


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


def test_steps_come_in_the_order_of_hugging_face() -> None:
    # Temperature before min-p: at T = 2 the second token is e^-1 as likely, so 0.3 keeps it.
    shape = pipeline(SamplingParams(temperature=2, min_p=0.3))
    assert shape([], np.float32([2, 0, -9])).ids.tolist() == [0, 1]
    # Top-k before top-p: the second has 0.27 of two tokens' mass, less of all.
    shape = pipeline(SamplingParams(temperature=1, top_k=2, top_p=0.72))
    assert shape([], np.float32([1, 0, 0, 0])).ids.tolist() == [0]
    # The penalty before all.
    assert make_picker(SamplingParams(repetition_penalty=3), 0)([0], np.float32([2, 1]), 1) == 1


def test_the_temperature_comes_last_in_llama_cpp() -> None:
    row = np.float32([2, 0, -9])
    assert pipeline(SamplingParams(temperature=2, min_p=0.3, profile="llama.cpp"))([], row).ids.tolist() == [
        0
    ]
    # So at temperature 0 the likeliest of what typical_p or XTC leave is taken, elsewhere of all.
    row = np.log(np.float32([0.4] + [0.06] * 10))
    for profile, token in (("openai", 0), ("llama.cpp", 1)):
        assert make_picker(SamplingParams(typical_p=0.5, profile=profile), 0)([], row, 0) == token
    excluding = SamplingParams(xtc_probability=1, xtc_threshold=0.05, profile="llama.cpp")
    assert make_picker(excluding, 0)([], row, 0) == 10


@given(rows, st.integers(0, 9), st.floats(0.1, 1), st.floats(0, 1))
def test_greedy_needs_no_truncation(row: Row, k: int, mass: float, fraction: float) -> None:
    params = SamplingParams(temperature=0, top_k=k, top_p=mass, min_p=fraction)
    assert make_picker(params, 0)([], row, 0) == ranked(row)[0]


def test_rows_are_not_changed() -> None:
    row = ROW.copy()
    params = SamplingParams(
        temperature=1,
        logit_bias={1: 3},
        repetition_penalty=2,
        suppress_tokens=(3,),
        allowed_token_ids=(1, 2, 3),
    )
    make_picker(params, 0)([1, 2], row, 2)
    np.testing.assert_array_equal(row, ROW)


# What is picked


def at_temperature(row: Row, degree: float, ids: list[int]) -> np.ndarray:
    """Softmax at a temperature over the kept ids, zero elsewhere, `[vocab]`."""
    probabilities = np.zeros(len(row))
    probabilities[ids] = softmax(row[ids] / np.float32(degree))
    return probabilities


@pytest.fixture(scope="module")
def picked() -> np.ndarray:
    """Tokens at successive positions under one seed, `[draws]`."""
    pick = make_picker(PARAMS, 1234)
    return np.array([pick([], ROW, position) for position in range(DRAWS)])


def test_positions_are_drawn_from_the_distribution(picked: np.ndarray) -> None:
    seen = np.bincount(picked, minlength=len(ROW))
    assert fits(seen, at_temperature(ROW, 0.8, [0, 1, 2, 3]))
    assert not fits(seen, at_temperature(ROW, 0.84, [0, 1, 2, 3]))  # power: each of these is wrong, and found
    assert not fits(seen, at_temperature(ROW, 0.8, [0, 1, 2, 3, 4]))
    assert not fits(seen, at_temperature(ROW, 0.8, [0, 1, 2]))


@pytest.mark.parametrize("lag", [1, 2, 64])
def test_positions_are_independent(picked: np.ndarray, lag: int) -> None:
    p = at_temperature(ROW, 0.8, [0, 1, 2, 3])
    pairs = np.bincount(picked[:-lag] * len(p) + picked[lag:], minlength=len(p) ** 2)
    assert fits(pairs, np.outer(p, p))
    sticky = np.where(np.random.default_rng(0).random(DRAWS) < 0.03, np.roll(picked, lag), picked)
    assert not fits(np.bincount(sticky[:-lag] * len(p) + sticky[lag:], minlength=len(p) ** 2), np.outer(p, p))


def test_a_seed_repeats_itself_and_another_does_not() -> None:
    one, again, other = (make_picker(PARAMS, seed) for seed in (1, 1, 2))
    first = [one([], ROW, position) for position in range(200)]
    assert first == [again([], ROW, position) for position in range(200)]
    assert first != [other([], ROW, position) for position in range(200)]


def test_xtc_fires_as_often_as_asked_and_then_excludes() -> None:
    """A mixture: with probability 0.3 the top choices (here 0, 1 and 2) are gone but the last of them."""
    params = SamplingParams(temperature=1, xtc_probability=0.3, xtc_threshold=0.14)
    pick = make_picker(params, 77)
    seen = np.bincount([pick([], ROW, position) for position in range(50_000)], minlength=len(ROW))
    everything, left = [*range(8)], [*range(2, 8)]
    assert fits(seen, 0.7 * at_temperature(ROW, 1, everything) + 0.3 * at_temperature(ROW, 1, left))
    assert not fits(seen, 0.67 * at_temperature(ROW, 1, everything) + 0.33 * at_temperature(ROW, 1, left))
    assert not fits(seen, 0.7 * at_temperature(ROW, 1, everything) + 0.3 * at_temperature(ROW, 1, left[1:]))
    fired = sum(0 not in pipeline(params, seed=77)([], ROW, position).ids for position in range(2000))
    assert fired == sum(coin(77, position) < 0.3 for position in range(2000))
    assert abs(fired - 600) < 6 * math.sqrt(2000 * 0.3 * 0.7)


def test_a_pipeline_asked_without_a_position_means_the_one_behind_the_text() -> None:
    shape = pipeline(SamplingParams(temperature=1, xtc_probability=0.5), seed=3)
    for length in range(60):
        text = [0] * length
        assert shape(text, ROW).ids.tolist() == shape([], ROW, length).ids.tolist()


# State

ANY = SamplingParams(
    temperature=1,
    repetition_penalty=1.3,
    frequency_penalty=0.2,
    dry_multiplier=0.4,
    dry_sequence_breakers=(),
    no_repeat_ngram_size=3,
)
texts = st.lists(st.integers(0, 4), max_size=24)


@given(st.lists(texts, min_size=1, max_size=8), st.integers(0, 99))
def test_what_came_before_does_not_matter(sequences: list[list[int]], seed: int) -> None:
    """One pipeline asked about several beams gives each what a fresh one gives."""
    row = np.random.default_rng(seed).normal(0, 2, 9).astype(np.float32)
    one = pipeline(ANY, Setting(2))
    for sequence in sequences:
        fresh = pipeline(ANY, Setting(2))(sequence, row)
        np.testing.assert_array_equal(one(sequence, row).logits, fresh.logits)


def test_bans_that_leave_nothing_are_named() -> None:
    params = SamplingParams(allowed_token_ids=(1, 2), suppress_tokens=(1,), bad_words=((0, 2),))
    pick = make_picker(params, 0)
    assert pick([5], ROW, 1) == 2
    with pytest.raises(RequestError, match="after 1 tokens no token is left by bad_words, suppress_tokens"):
        pick([0], ROW, 1)


@pytest.mark.parametrize(("name", "value"), [("mirostat", 2), ("adaptive_target", 0.3)])
def test_who_weighs_many_tokens_cannot_learn_from_one(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"{name}={value} learns from each token drawn"):
        pipeline(SamplingParams(temperature=1, **{name: value}))


# Log probabilities


@pytest.mark.parametrize("mode", ["raw", "processed"])
def test_log_probabilities_are_before_or_after_all_steps(mode: Any) -> None:
    log = LogprobLog(3)
    params = SamplingParams(
        temperature=0.8, top_k=6, top_p=0.9, logit_bias={0: 1.0}, logprobs=3, logprobs_mode=mode
    )
    pick = make_picker(params, 5, Setting(2), log)
    tokens = [pick([0, 0], ROW, position) for position in range(2, 40)]
    if mode == "raw":
        p = softmax(ROW)
    else:
        ids, logits = pipeline(params)([0, 0], ROW)
        p = [0.0] * len(ROW)
        for token, probability in zip(ids, softmax(logits), strict=True):
            p[token] = probability
    for token, noted in zip(tokens, log.read(2, 40), strict=True):
        assert noted.token == token
        assert noted.logprob == pytest.approx(math.log(p[token]), abs=1e-5)
        assert [other.token for other in noted.top] == sorted(range(len(p)), key=lambda t: -p[t])[:3]
        assert [other.logprob for other in noted.top] == pytest.approx(
            [math.log(q) for q in sorted(p)[:-4:-1]], abs=1e-5
        )


def test_greedy_is_certain_once_processed() -> None:
    log = LogprobLog(2)
    make_picker(SamplingParams(logprobs=2, logprobs_mode="processed"), 0, Setting(0), log)([], ROW, 0)
    (noted,) = log.read(0, 1)
    assert (noted.logprob, noted.top) == (0.0, ((0, 0.0),))
