"""Penalties against their definitions, on histories that a text left behind."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import slow_sampling
from logit_rows import rows
from sardonyx.runtime.logits import Processor, Row
from sardonyx.runtime.logits.candidates import LOWEST
from sardonyx.runtime.logits.dry import Repeats, dry
from sardonyx.runtime.logits.history import History, Tally
from sardonyx.runtime.logits.penalties import (
    exponential_decay_length_penalty,
    frequency_penalty,
    presence_penalty,
    repetition_penalty,
)

histories = st.lists(st.integers(0, 10**6), max_size=60)
Maker = Callable[[Tally], Processor]


def penalised(maker: Maker, history: list[int], row: Row) -> Row:
    followed = History()
    process = maker(followed.watch(Tally()))
    followed.follow(history)
    row = row.copy()
    process(row)
    return row


@given(rows, histories, st.floats(0.1, 10))
@example(np.float32([1, -1]), [0, 1, 1], 1e-38)
@example(np.float32([1, -9]), [0, 1, 1], 1e38)
@example(np.float32([1, -9]), [0, 1, 1], 1e308)
def test_a_seen_token_is_penalised_once(row: Row, history: list[int], penalty: float) -> None:
    sequence = [token % len(row) for token in history]
    got = penalised(lambda seen: repetition_penalty(penalty, seen), sequence, row)
    for token, value in enumerate(row.tolist()):
        new = (value / penalty if value > 0 else value * penalty) if token in sequence else value
        assert got[token] == np.float32(new if math.isinf(value) else np.clip(new, LOWEST, -LOWEST))


@given(rows, histories, st.floats(-3, 3))
@example(np.float32([1, -1]), [0, 1, 1], 1e308)
def test_presence_is_taken_once_and_frequency_as_often_as_seen(
    row: Row, history: list[int], penalty: float
) -> None:
    sequence = [token % len(row) for token in history]
    presence = penalised(lambda seen: presence_penalty(penalty, seen), sequence, row)
    frequency = penalised(lambda seen: frequency_penalty(penalty, seen), sequence, row)
    for got, expected in (
        (presence, slow_sampling.counted(row.tolist(), sequence, penalty, 0)),
        (frequency, slow_sampling.counted(row.tolist(), sequence, 0, penalty)),
    ):
        np.testing.assert_array_equal(got, np.float32(expected))


@pytest.mark.parametrize(
    "maker",
    [
        lambda seen: repetition_penalty(1.0, seen),
        lambda seen: presence_penalty(0.0, seen),
        lambda seen: frequency_penalty(0.0, seen),
    ],
)
@given(rows, histories)
def test_none_is_the_identity(maker: Maker, row: Row, history: list[int]) -> None:
    sequence = [token % len(row) for token in history]
    np.testing.assert_array_equal(penalised(maker, sequence, row), row)


@given(rows, st.integers(0, 12), st.integers(0, 12), st.floats(0.5, 2))
def test_an_end_becomes_likelier_from_a_place_on(row: Row, length: int, start: int, factor: float) -> None:
    history = History(2)
    process = exponential_decay_length_penalty(start, factor, (0,), history)
    history.follow([1] * (length + 2))
    got = row.copy()
    process(got)
    np.testing.assert_array_equal(got[1:], row[1:])
    gain = abs(row[0]) * (factor ** (length - start) - 1) if length > start and row[0] > -math.inf else 0
    np.testing.assert_allclose(got[0], row[0] + gain, rtol=1e-5)


@pytest.mark.parametrize("logit", [3.0, 0.0, -3.0, -math.inf])
def test_no_end_becomes_more_than_certain(logit: float) -> None:
    history = History(0)
    process = exponential_decay_length_penalty(0, 1e9, (0,), history)
    history.follow([1] * 400)
    row = np.float32([logit, 1])
    process(row)
    assert row[0] == (logit if logit in (0, -math.inf) else np.float32(-LOWEST))


# DRY

letters = st.lists(st.integers(0, 2), max_size=40)


@given(
    letters,
    st.floats(0, 3),
    st.floats(1, 3),
    st.integers(1, 4),
    st.sampled_from([None, 1, 5, 12]),
    st.sampled_from([(), ((2,),), ((1, 2),), ((0,), (1, 1, 2))]),
)
@example([0] * 400, 1.0, 1.5, 2, None, ())
def test_dry_is_what_looking_for_every_repeat_gives(
    text: list[int],
    multiplier: float,
    base: float,
    allowed: int,
    last_n: int | None,
    breakers: tuple[tuple[int, ...], ...],
) -> None:
    history = History()
    process = dry(multiplier, base, allowed, history.watch(Repeats(breakers, last_n)))
    history.follow(text)
    row = np.float32([0.5, -1, -math.inf, 3])
    got = row.copy()
    process(got)
    options = {
        "dry_multiplier": multiplier,
        "dry_base": base,
        "dry_allowed_length": allowed,
        "dry_sequence_breakers": breakers,
    }
    expected = slow_sampling.dry(row.tolist(), text, -1 if last_n is None else last_n, options)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_breaker_ends_the_passage_and_is_not_penalised() -> None:
    history = History()
    process = dry(1.0, 2.0, 1, history.watch(Repeats([(9,)])))
    for text, penalised_tokens in (
        ([1, 2, 3, 1, 2], {3: 2.0}),
        ([1, 2, 3, 9, 2], {3: 1.0}),
        ([1, 2, 3, 1, 9], {}),
        ([1, 2, 9, 1, 2], {}),
    ):
        history.follow(text)
        row = np.zeros(10, np.float32)
        process(row)
        assert {t: -z for t, z in enumerate(row.tolist()) if z} == penalised_tokens
