"""Texts longer than the context: what lies between the first tokens and the latest is forgotten.

The first tokens stay because attention rests on them (attention sinks: Xiao et al. 2023, arXiv 2309.17453).
When a text would outgrow the context, its first `attention_sinks` tokens and the latest half of the room
beside them remain, and the model reads on from these as if they were the whole text: their positions follow
one another, and what is kept of the later ones is computed anew, so that nothing of what is forgotten is left
in it. That costs about one more token of prompt for each token generated; turning cached keys to their new
positions would be cheaper, but keeps values that saw what is gone, and is not possible for every model.
"""

from collections.abc import Sequence
from typing import Annotated

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.logits import Pick
from sardonyx.runtime.params import Count, says
from sardonyx.runtime.strategies import Algorithm, Answer, Decoding, Feed, Request


class ContextShift(Algorithm, frozen=True, kw_only=True):
    """Draw tokens one by one, beyond the context: the first `attention_sinks` tokens and the latest stay.

    `Usage.forgotten_tokens` says how many went. One answer.
    """

    context_shift: Annotated[bool, says("True: a text may outgrow the context")]
    attention_sinks: Annotated[Count, says("context shift: first tokens that stay")] = 4

    @property
    def outgrows(self) -> bool:
        return True

    def start(self, request: Request) -> Decoding[None]:
        if not self.context_shift:
            raise RequestError("context_shift=False is what there is without it: leave it out")
        answer, context = request.only_answer("context shift"), request.context
        if context - self.attention_sinks < 2:
            raise RequestError(f"attention_sinks={self.attention_sinks} leave no room in {context} positions")
        if answer.prompt_logprobs is not None:
            raise RequestError("prompt_logprobs are of the whole prompt; context_shift may forget some of it")
        if request.params.max_tokens is None and not answer.ends:
            raise RequestError("nothing ends this answer: give max_tokens, or let it end by itself")
        return shifted(answer, request.pick(0), context, self.attention_sinks)


def shifted(answer: Answer, pick: Pick, context: int, sinks: int) -> Decoding[None]:
    """Decode until the answer is complete."""
    held: list[int] = []
    fresh = answer.sequence
    while True:
        kept = len(held)
        text = [*held, *fresh]
        if len(text) > context:
            remaining = what_remains(text, context, sinks)
            answer.forgotten += len(text) - len(remaining)
            text, kept = remaining, min(sinks, kept)
        (logits,) = yield Feed([text[kept:]], keep=[(0, kept)] if held else None)
        held = text
        if not answer.add(token := pick(answer.sequence, logits[-1], len(answer.sequence))):
            return
        fresh = [token]


def what_remains(text: Sequence[int], context: int, sinks: int) -> list[int]:
    """The first `sinks` tokens of a text that outgrows the context, and the latest half of the room."""
    return [*text[:sinks], *text[-((context - sinks) // 2) :]]
