"""The draw against its definition, and its noise against the published generator."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logit_rows import everything, fits, rows, softmax
from sardonyx.runtime.logits import Candidates, Row, draw, noise, noise_key, uniform
from sardonyx.runtime.logits.candidates import all_ids
from sardonyx.runtime.logits.noise import coin
from sardonyx.runtime.logits.truncation import min_p, top_k, top_p


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


@pytest.mark.parametrize("spread", [0.01, 1, 5, 60, 1e30])
@pytest.mark.parametrize("size", [7, 512, 513, 8192, 8193, 20_000])
def test_the_draw_from_a_vocabulary_is_that_argmax(spread: float, size: int) -> None:
    row = np.random.default_rng(0).normal(0, spread, size).astype(np.float32)
    row[size // 5 : size // 2] = -math.inf
    ids = np.arange(size, dtype=np.int32)
    for seed in range(60):
        gumbel = -np.log(-np.log(uniform(ids, noise_key(seed, 3))))
        assert draw(everything(row), seed, 3) == draw(Candidates(all_ids(size), row), seed, 3)
        assert draw(everything(row), seed, 3) == np.argmax(row + gumbel)


def test_heats_do_not_change_the_winner(monkeypatch: pytest.MonkeyPatch) -> None:
    row = np.random.default_rng(0).normal(0, 2, 5000).astype(np.float32)
    row[1000:2500] = -math.inf  # some heats are all masked
    alone = [draw(everything(row), seed, 3) for seed in range(100)]
    monkeypatch.setattr(noise, "HEAT", 512)
    assert [draw(everything(row), seed, 3) for seed in range(100)] == alone
    assert not {*alone} & {*range(1000, 2500)}


@pytest.mark.parametrize("size", [2, 600])
def test_where_all_are_masked_the_first_is_drawn(size: int) -> None:
    ids = np.arange(4, 4 + size, dtype=np.int32)
    assert draw(Candidates(ids, np.full(size, -math.inf, np.float32)), 0, 0) == 4


@given(rows, st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_cutting_off_losers_does_not_change_the_winner(
    row: Row, seed: int, share: float, fraction: float
) -> None:
    """Noise couples all truncations: a token that wins among all wins among any that it is kept with."""
    winner = draw(everything(row), seed, 11)
    for transform in (top_p(max(share, 0.01)), min_p(max(fraction, 1e-6)), top_k(5)):
        left = transform(everything(row))
        assert winner not in left.ids or draw(left, seed, 11) == winner


def test_seeds_are_drawn_from_the_distribution() -> None:
    row = np.float32([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -6.0])
    seen = np.bincount([draw(everything(row), seed, 5) for seed in range(100_000)], minlength=len(row))
    assert fits(seen, np.array(softmax(row)))
    assert not fits(seen, np.array(softmax(row / np.float32(1.04))))  # power


def test_coins_are_fair_and_have_nothing_to_do_with_the_tokens() -> None:
    tosses = np.array([coin(7, position) for position in range(50_000)])
    assert fits(np.bincount((tosses * 20).astype(int), minlength=20), np.full(20, 0.05))
    first = np.array(
        [uniform(np.zeros(1, np.int32), noise_key(7, position))[0] for position in range(50_000)]
    )
    together = np.bincount((tosses * 5).astype(int) * 5 + (first * 5).astype(int), minlength=25)
    assert fits(together, np.full(25, 0.04))
    shifted = np.bincount((tosses * 5).astype(int) * 5 + (tosses * 5).astype(int), minlength=25)
    assert not fits(shifted, np.full(25, 0.04))  # power
