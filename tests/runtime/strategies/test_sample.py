"""Greedy decoding and sampling, one answer or several, by handing logits to the strategy."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sardonyx.runtime.logits import LogprobLog
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies import Feed
from sardonyx.runtime.strategies.sample import Sample, sample
from toys import Player, ToyAnswer, drawn, logprob, request, toy

WARM = SamplingParams(temperature=1.0)


def test_sample_feeds_the_prompt_then_each_token_and_ends_with_the_answer() -> None:
    answer = ToyAnswer([4, 5], limit=3)
    seen = []

    def pick(sequence: list[int], logits: np.ndarray, position: int) -> int:
        seen.append((list(sequence), logits.tolist(), position))
        return int(logits.argmax())

    strategy = sample(answer, pick)
    assert next(strategy) == Feed([[4, 5]])
    answers = [np.array([[0, 1, 0]], np.float32), np.array([[0, 0, 1]], np.float32)]
    assert strategy.send([answers[0]]) == Feed([[1]])
    assert strategy.send([answers[1]]) == Feed([[2]])
    with pytest.raises(StopIteration):
        strategy.send([answers[0]])
    assert answer.sequence == [4, 5, 1, 2, 1]
    assert seen == [
        ([4, 5], [0, 1, 0], 2),
        ([4, 5, 1], [0, 0, 1], 3),
        ([4, 5, 1, 2], [0, 1, 0], 4),
    ]


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 9))
def test_each_of_several_answers_is_what_it_is_alone(seed: int, n: int, limit: int) -> None:
    """The first is the only one of n = 1; each of the others has noise that depends on its number alone."""
    model = toy(6, seed)
    together = [ToyAnswer([1, 2, 3], limit, frozenset({0})) for _ in range(n)]
    player = Player([model])
    player.run(Sample().start(request(*together, params=WARM, seed=seed)))
    assert together[0].tokens == drawn(model, ToyAnswer([1, 2, 3], limit, frozenset({0})), WARM, seed)
    assert player.fed == 3 + sum(len(answer.tokens) - 1 for answer in together)
    fewer = [ToyAnswer([1, 2, 3], limit, frozenset({0})) for _ in range(n - 1)]
    Player([model]).run(Sample().start(request(*fewer, params=WARM, seed=seed)))
    assert [answer.tokens for answer in fewer] == [answer.tokens for answer in together[:-1]]


def test_answers_differ() -> None:
    answers = [ToyAnswer([1], 6) for _ in range(8)]
    Player([toy(9, spread=0.5)]).run(Sample().start(request(*answers, params=WARM)))
    assert len({tuple(answer.tokens) for answer in answers}) == 8


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 300])
def test_log_probabilities_of_the_prompt(n: int, length: int) -> None:
    model, prompt = toy(5, 2), np.random.default_rng(length).integers(0, 5, length).tolist()
    log = LogprobLog(2)
    answers = [ToyAnswer(prompt, 3, prompt_logprobs=log) for _ in range(n)]
    player = Player([model])
    player.run(Sample().start(request(*answers)))
    assert player.fed == length + 2 * n
    found = log.read(1, length)
    assert [noted.token for noted in found] == prompt[1:]
    expected = [logprob(model, prompt[:i], prompt[i : i + 1]) for i in range(1, length)]
    np.testing.assert_allclose([noted.logprob for noted in found], expected, atol=1e-5)
    assert all(len(noted.top) == 2 for noted in found)
