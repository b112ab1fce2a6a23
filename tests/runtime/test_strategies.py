"""A decoding algorithm is tested by handing it logits."""

import numpy as np
import pytest

from sardonyx.runtime.strategies import Feed
from sardonyx.runtime.strategies.sample import sample


class Notebook:
    """An answer of so many tokens."""

    def __init__(self, prompt: list[int], room: int) -> None:
        self.sequence = prompt
        self.room = room

    def add(self, token: int) -> bool:
        self.sequence.append(token)
        self.room -= 1
        return self.room > 0


def test_sample_feeds_the_prompt_then_each_token_and_ends_with_the_answer() -> None:
    answer = Notebook([4, 5], room=3)
    seen = []

    def pick(sequence: list[int], logits: np.ndarray, position: int) -> int:
        seen.append((list(sequence), logits.tolist(), position))
        return int(logits.argmax())

    strategy = sample(answer, pick)  # type: ignore[arg-type]
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
