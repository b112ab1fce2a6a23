"""Greedy decoding and sampling: one token at a time, as the picker chooses."""

from collections.abc import Callable, Sequence

from sardonyx.runtime.backends.base import Float32
from sardonyx.runtime.strategies import Answer, Feed, Strategy

Pick = Callable[[Sequence[int], Float32], int]
"""From the sequence so far and the logits `[vocab]` of what follows to the token that follows."""


def sample(answer: Answer, pick: Pick) -> Strategy:
    """Decode until the answer is complete."""
    (logits,) = yield Feed([answer.sequence])
    while answer.add(token := pick(answer.sequence, logits[-1])):
        (logits,) = yield Feed([[token]])
