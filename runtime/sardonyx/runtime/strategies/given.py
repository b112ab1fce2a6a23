"""Texts that are given, not generated: nothing is decided, what the model answers is handed on."""

from collections.abc import Sequence

from sardonyx.runtime.backends.base import Float32
from sardonyx.runtime.strategies import Decoding, Feed


def given(feeds: Sequence[Feed]) -> Decoding[list[Sequence[Float32]]]:
    """Feed one after another. The result is what was received for each."""
    answers = []
    for feed in feeds:
        logits = yield feed
        answers.append(logits)
    return answers
