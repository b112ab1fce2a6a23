"""Greedy decoding and sampling: one token at a time, as the picker chooses."""

from collections.abc import Sequence

from sardonyx.runtime.logits import Pick
from sardonyx.runtime.strategies import Algorithm, Answer, Decoding, Feed, Request, prompt_fed


class Sample(Algorithm, frozen=True, kw_only=True):
    """Draw each token from the distribution that the parameters shape: at temperature 0 the likeliest.

    n answers share one pass over the prompt, and go on side by side.
    """

    def start(self, request: Request) -> Decoding[None]:
        picks = [request.pick(i) for i in range(len(request.answers))]
        if len(picks) == 1:
            return sample(request.answers[0], picks[0])
        return samples(request.answers, picks)


def sample(answer: Answer, pick: Pick) -> Decoding[None]:
    """Decode until the answer is complete."""
    logits = yield from prompt_fed(answer)
    while answer.add(token := pick(answer.sequence, logits[-1], len(answer.sequence))):
        (logits,) = yield Feed([[token]])


def samples(answers: Sequence[Answer], picks: Sequence[Pick]) -> Decoding[None]:
    """Decode until all answers to one prompt are complete, each as if it were alone."""
    first = yield from prompt_fed(answers[0])
    given = [(answer, pick, first, 0) for answer, pick in zip(answers, picks, strict=True)]
    while growing := [
        (answer, pick, row)
        for answer, pick, logits, row in given
        if answer.add(pick(answer.sequence, logits[-1], len(answer.sequence)))
    ]:
        rows = yield Feed(
            [answer.sequence[-1:] for answer, _, _ in growing],
            keep=[(row, len(answer.sequence) - 1) for answer, _, row in growing],
        )
        given = [(*growing[row][:2], logits, row) for row, logits in enumerate(rows)]
