"""Scores are log probabilities: of every token, however candidates share beginnings and are batched."""

from itertools import product

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sardonyx.runtime.strategies.score import ROWS, score
from toys import Player, logprob, toy

TEXTS = st.lists(st.integers(0, 3), min_size=1, max_size=8)


@given(st.integers(0, 10_000), TEXTS, st.lists(TEXTS, min_size=1, max_size=40))
def test_every_token_of_every_candidate(seed: int, prompt: list[int], candidates: list[list[int]]) -> None:
    model = toy(4, seed)
    found = Player([model]).run(score(prompt, candidates))
    assert [len(logprobs) for logprobs in found] == [len(tokens) for tokens in candidates]
    for logprobs, tokens in zip(found, candidates, strict=True):
        expected = [logprob(model, prompt + tokens[:i], tokens[i : i + 1]) for i in range(len(tokens))]
        np.testing.assert_allclose(logprobs, expected, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_all_texts_of_a_length_together_are_certain(length: int) -> None:
    candidates = list(product(range(4), repeat=length))
    found = Player([toy(4, 7)]).run(score([1, 2], candidates))
    assert np.exp([sum(logprobs) for logprobs in found]).sum() == pytest.approx(1, abs=1e-6)


def test_long_candidates_come_in_pieces() -> None:
    model, rng = toy(4, 1), np.random.default_rng(0)
    candidates = [rng.integers(0, 4, length).tolist() for length in (300, 40, 16, 17, 1, 15)]
    found = Player([model]).run(score([1], candidates))
    for logprobs, tokens in zip(found, candidates, strict=True):
        assert sum(logprobs) == pytest.approx(logprob(model, [1], tokens), abs=1e-3)


def test_what_is_shared_is_fed_once() -> None:
    """The prompt, and what all candidates begin with; of each candidate not its last token."""
    player = Player([toy(4)])
    candidates = [[0, 1, 2, 3, last] for last in range(4)] * ROWS
    player.run(score([1] * 50, candidates))
    assert player.fed == 50 + 4
    player = Player([toy(4)])
    player.run(score([1] * 50, [[first, 1, 2] for first in range(4)]))
    assert player.fed == 50 + 4 * 2
    assert player.passes == 2
