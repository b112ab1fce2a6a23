"""Greedy decoding and sampling: one token at a time, as the picker chooses."""

from sardonyx.runtime.logits import Pick
from sardonyx.runtime.strategies import Answer, Feed, Strategy


def sample(answer: Answer, pick: Pick) -> Strategy:
    """Decode until the answer is complete."""
    (logits,) = yield Feed([answer.sequence])
    while answer.add(token := pick(answer.sequence, logits[-1], len(answer.sequence))):
        (logits,) = yield Feed([[token]])
