"""Contrastive search against its definition, written out slowly."""

import math
from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies.contrastive_search import ContrastiveSearch
from toys import Logits, Player, ToyAnswer, decoded, greedily, logprobs, request, toy

SEEDS = st.integers(0, 10_000)


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


def reference(model: Logits, hidden: Logits, answer: ToyAnswer, alpha: float, k: int) -> list[int]:
    """Every candidate with every position before, one by one."""
    answer = answer.fork()
    while True:
        text = answer.sequence
        probabilities = np.exp(logprobs(model(text)))
        before = [hidden(text[: i + 1]) for i in range(len(text))]

        candidates = [int(token) for token in np.argsort(-probabilities, kind="stable")[:k]]
        likeness = [max(cosine(hidden([*text, token]), other) for other in before) for token in candidates]
        worth = [
            (1 - alpha) * float(probabilities[token]) - alpha * like
            for token, like in zip(candidates, likeness, strict=True)
        ]
        if not answer.add(candidates[worth.index(max(worth))]):
            return answer.tokens


@given(SEEDS, st.sampled_from([0.1, 0.6, 1.0]), st.integers(2, 5), st.integers(1, 40))
def test_the_definition(seed: int, alpha: float, k: int, prompt: int) -> None:
    model, hidden = toy(8, seed), toy(5, seed + 1)
    answer = ToyAnswer([token % 8 for token in range(prompt)], 6, frozenset({0}))
    params = SamplingParams(top_k=k)
    options = ContrastiveSearch(penalty_alpha=alpha)
    assert decoded(options, model, answer=answer, params=params, hidden=hidden) == reference(
        model, hidden, answer, alpha, k
    )


@given(SEEDS)
def test_greedy_without_a_penalty_or_a_choice(seed: int) -> None:
    model, hidden, answer = toy(8, seed), toy(5, seed), ToyAnswer([1, 2, 3], 10, frozenset({0}))
    for alpha, k in ((0.0, 5), (0.6, 1), (1.0, 1)):
        options, params = ContrastiveSearch(penalty_alpha=alpha), SamplingParams(top_k=k)
        assert decoded(options, model, answer=answer, params=params, hidden=hidden) == greedily(model, answer)


def test_a_long_prompt_comes_in_pieces_and_each_step_feeds_all_candidates_once() -> None:
    player = Player([toy(8)], toy(5))
    answer = ToyAnswer([1] * 300, 4)
    player.run(ContrastiveSearch(penalty_alpha=0.6).start(request(answer, params=SamplingParams(top_k=3))))
    assert player.fed == 300 + 4 * 3


def test_penalties_shape_what_is_tried() -> None:
    """A banned token is no candidate."""
    model, hidden, answer = toy(4, 2), toy(5), ToyAnswer([1, 2], 12)
    params = SamplingParams(top_k=3, suppress_tokens=(3, 1))
    tokens = decoded(ContrastiveSearch(penalty_alpha=0.6), model, answer=answer, params=params, hidden=hidden)
    assert set(tokens) == {0, 2}


def test_what_cannot_be_done_is_refused() -> None:
    options = ContrastiveSearch(penalty_alpha=0.6)
    for params, n, message in [
        (SamplingParams(), 1, "contrastive search tries the top_k likeliest tokens: set top_k"),
        (
            SamplingParams(top_k=4, top_p=0.9),
            1,
            "top_p=0.9 is for drawing, and contrastive search",
        ),
        (SamplingParams(top_k=4, temperature=1.0), 1, "temperature=1.0 is for drawing"),
        (SamplingParams(top_k=4), 2, "contrastive search gives one answer, not n=2"),
        (SamplingParams(top_k=4, logprobs=1), 1, "logprobs=1: contrastive search notes none"),
        (SamplingParams(top_k=4, prompt_logprobs=0), 1, "prompt_logprobs=0: contrastive search notes none"),
    ]:
        with pytest.raises(RequestError) as raised:
            options.start(request(*(ToyAnswer([1]) for _ in range(n)), params=params))
        assert str(raised.value).startswith(message)
    with pytest.raises(RequestError, match=r"penalty_alpha=1\.5 is out of range: it must be at least 0"):
        ContrastiveSearch(penalty_alpha=1.5)
