"""Biases and bans: each forbids what it says, when it says so, and nothing else."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import slow_sampling
from logit_rows import rows
from sardonyx.runtime.logits import Processor, Row
from sardonyx.runtime.logits.bans import (
    allowed_token_ids,
    bad_words,
    begin_suppress_tokens,
    forced_bos_token_id,
    logit_bias,
    min_tokens,
    no_repeat_ngram_size,
    suppress_tokens,
)
from sardonyx.runtime.logits.history import History, Ngrams

ROW = np.float32([0, 1, 2, 3, 4, 5])
letters = st.lists(st.integers(0, 3), max_size=16)


def banned(process: Processor) -> set[int]:
    """Tokens that are forbidden. The others are as they were."""
    row = ROW.copy()
    process(row)
    forbidden = row == -math.inf
    np.testing.assert_array_equal(row[~forbidden], ROW[~forbidden])
    return {*np.flatnonzero(forbidden).tolist()}


@given(rows, st.dictionaries(st.integers(0, 999), st.floats(-9, 9), max_size=6))
def test_a_bias_is_added(row: Row, bias: dict[int, float]) -> None:
    bias = {token % len(row): amount for token, amount in bias.items()}
    got = row.copy()
    logit_bias(bias)(got)
    np.testing.assert_array_equal(got, np.float32([z + bias.get(t, 0.0) for t, z in enumerate(row.tolist())]))


def test_a_bias_forbids_nothing_and_allows_nothing() -> None:
    row = np.float32([1, -math.inf, 3])
    logit_bias({0: -1e300, 1: 1e300, 2: 1e300})(row)
    assert np.isfinite(row[[0, 2]]).all()
    assert row[1] == -math.inf


def test_tokens_are_suppressed_or_allowed() -> None:
    assert banned(suppress_tokens([1, 4])) == {1, 4}
    assert banned(allowed_token_ids([1, 4])) == {0, 2, 3, 5}


def test_some_bans_are_for_a_time() -> None:
    history = History(2)
    first = [
        begin_suppress_tokens([1], history),
        forced_bos_token_id(5, history),
        min_tokens(3, {0, 2}, history),
    ]
    for length, expected in (
        (2, [{1}, {0, 1, 2, 3, 4}, {0, 2}]),
        (3, [set(), set(), {0, 2}]),
        (5, [set()] * 3),
    ):
        history.follow([3] * length)
        forced = ROW.copy()
        first[1](forced)
        assert {*np.flatnonzero(forced == -math.inf).tolist()} == expected[1]
        assert [banned(first[0]), banned(first[2])] == [expected[0], expected[2]]


@given(
    letters, st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), min_size=1, max_size=4)
)
def test_bad_words_are_not_completed(text: list[int], words: list[tuple[int, ...]]) -> None:
    for start in (0, 5):
        history = History()
        process = bad_words(words, history, start)
        history.follow(text)
        assert banned(process) == {*slow_sampling.completing(words, text[start:])}


@given(letters, st.integers(1, 4))
def test_no_ngram_comes_twice(text: list[int], size: int) -> None:
    history = History()
    process = no_repeat_ngram_size(history.watch(Ngrams(size)), history)
    history.follow(text)
    grams = [tuple(text[i : i + size]) for i in range(len(text) - size + 1)]
    expected = {t for t in range(6) if len(text) >= size - 1 and (*text[len(text) - size + 1 :], t) in grams}
    assert banned(process) == expected


@given(st.integers(1, 4), st.integers(0, 99))
def test_a_text_without_repeated_ngrams_has_none(size: int, seed: int) -> None:
    """Whatever is picked of what is left, until nothing is."""
    random = np.random.default_rng(seed)
    history, text = History(), []
    process = no_repeat_ngram_size(history.watch(Ngrams(size)), history)
    while len(text) < 60:
        history.follow(text)
        left = {0, 1, 2} - banned(process)
        if not left:
            break
        text.append(int(random.choice([*left])))
    grams = [tuple(text[i : i + size]) for i in range(len(text) - size + 1)]
    assert len(grams) == len({*grams}) > 0
