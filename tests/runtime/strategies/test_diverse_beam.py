"""Diverse beam search against its definition, and against beam search where it comes to the same."""

from collections import Counter
from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies import Algorithm
from sardonyx.runtime.strategies.beam import BeamSearch
from sardonyx.runtime.strategies.diverse_beam import DiverseBeamSearch
from toys import Logits, Player, ToyAnswer, logprob, logprobs, request, toy

SEEDS = st.integers(0, 10_000)
END = frozenset({0})
Found = list[tuple[list[int], float]]


def best(model: Logits, options: Algorithm, answer: ToyAnswer, n: int) -> Found:
    """The n best texts and their scores."""
    answers = [answer.fork() for _ in range(n)]
    scores = Player([model]).run(options.start(request(*answers)))
    return [(a.tokens, score) for a, score in zip(answers, scores, strict=False)]


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 4), st.booleans())
def test_one_group_is_beam_search(seed: int, beams: int, early: bool) -> None:
    model, answer = toy(6, seed), ToyAnswer([1, 2], 6, END)
    diverse = DiverseBeamSearch(num_beams=beams, num_beam_groups=1, early_stopping=early)
    plain = BeamSearch(num_beams=beams, early_stopping=early)
    assert best(model, diverse, answer, beams) == best(model, plain, answer, beams)


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 3), st.integers(1, 4))
def test_without_a_penalty_groups_are_copies(seed: int, width: int, groups: int) -> None:
    model, answer = toy(6, seed), ToyAnswer([1, 2], 6, END)
    diverse = DiverseBeamSearch(
        num_beams=width * groups, num_beam_groups=groups, diversity_penalty=0.0, length_penalty=0.5
    )
    one = best(model, BeamSearch(num_beams=width, length_penalty=0.5), answer, width)
    copies = best(model, diverse, answer, width * groups)
    assert sorted(copies) == sorted(one * groups)


@given(SEEDS, st.integers(2, 6))
def test_a_large_penalty_makes_all_beginnings_differ(seed: int, groups: int) -> None:
    model, answer = toy(7, seed), ToyAnswer([1, 2], 4)
    diverse = DiverseBeamSearch(num_beams=groups, num_beam_groups=groups, diversity_penalty=1e6)
    assert len({tokens[0] for tokens, _ in best(model, diverse, answer, groups)}) == groups


def reference(model: Logits, prompt: Sequence[int], groups: int, penalty: float, limit: int) -> Found:
    """Groups of one beam each, by the definition: greedy decoding of lowered log probabilities."""
    texts: list[list[int]] = [[] for _ in range(groups)]
    scores = [0.0] * groups
    for _ in range(limit):
        said: Counter[int] = Counter()
        for group, text in enumerate(texts):
            values = logprobs(model([*prompt, *text])) - penalty * np.array([said[v] for v in range(7)])
            text.append(int(values.argmax()))
            scores[group] += values.max()
            said[text[-1]] += 1
    return sorted(zip(texts, scores, strict=True), key=lambda one: -one[1])


@given(SEEDS, st.integers(1, 5), st.sampled_from([0.0, 0.3, 1.0, 4.0]))
def test_groups_of_one_follow_the_definition(seed: int, groups: int, penalty: float) -> None:
    model = toy(7, seed)
    diverse = DiverseBeamSearch(
        num_beams=groups, num_beam_groups=groups, diversity_penalty=penalty, length_penalty=0.0
    )
    found = best(model, diverse, ToyAnswer([1, 2], 5), groups)
    expected = reference(model, [1, 2], groups, penalty, 5)
    assert sorted(tokens for tokens, _ in found) == sorted(tokens for tokens, _ in expected)
    np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], atol=1e-4)


@given(SEEDS)
def test_the_first_group_is_not_discouraged(seed: int) -> None:
    """So its best text scores what it is worth."""
    model, answer = toy(6, seed), ToyAnswer([1], 5, END)
    diverse = DiverseBeamSearch(num_beams=4, num_beam_groups=2, diversity_penalty=0.8)
    found = best(model, diverse, answer, 4)
    ((tokens, score),) = best(model, BeamSearch(num_beams=2), answer, 1)
    assert (tokens, score) in found
    assert score == pytest.approx(logprob(model, [1], tokens) / len(tokens), abs=1e-5)


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(RequestError, match="num_beam_groups=3 is out of range: it must be a divisor of"):
        DiverseBeamSearch(num_beams=4, num_beam_groups=3)
    with pytest.raises(RequestError, match="diversity_penalty=-1 is out of range: it must be at least 0"):
        DiverseBeamSearch(num_beams=4, num_beam_groups=2, diversity_penalty=-1)
    options = DiverseBeamSearch(num_beams=4, num_beam_groups=2)
    with pytest.raises(RequestError, match=r"temperature=0\.5 is for drawing, and diverse beam search"):
        options.start(request(ToyAnswer([1]), params=SamplingParams(temperature=0.5)))
    with pytest.raises(RequestError, match="n=5 is more than there will be: num_beams=4"):
        options.start(request(*(ToyAnswer([1]) for _ in range(5))))
