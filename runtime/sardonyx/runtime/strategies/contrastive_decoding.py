"""Contrastive decoding: what a large model finds likelier than a small one does.

Li 2022 (arXiv 2210.15097).
"""

import math
from typing import Annotated, Any

import numpy as np

from sardonyx.runtime.backends.base import Float32
from sardonyx.runtime.logits import Pick, Pipeline
from sardonyx.runtime.params import PositiveShare, says
from sardonyx.runtime.strategies import Algorithm, Answer, Decoding, Feed, Request, prompt_fed

AMATEUR = 1


class ContrastiveDecoding(Algorithm, frozen=True, kw_only=True):
    """Logits are log p - log p_amateur, of the tokens at least `plausibility` times as likely to the model
    asked, the expert, as its likeliest; what is forbidden is neither. `amateur` is a language model (an
    `LLM`) with the same tokens.
    """

    amateur: Annotated[Any, says("contrastive decoding: a lesser model, to differ from")]
    plausibility: Annotated[PositiveShare, says("contrastive decoding: least share of the top p")] = 0.1

    @property
    def others(self) -> tuple[Any, ...]:
        return (self.amateur,)

    def start(self, request: Request) -> Decoding[None]:
        answer = request.only_answer("contrastive decoding")
        return contrastive_decoding(answer, request.pick(0), request.bans(), self.plausibility)


def contrastive_decoding(answer: Answer, pick: Pick, bans: Pipeline, plausibility: float) -> Decoding[None]:
    """Decode until the answer is complete, with two models in step."""
    expert = yield from prompt_fed(answer)
    (amateur,) = yield Feed([answer.sequence], model=AMATEUR)
    while True:
        allowed = bans(answer.sequence, expert[-1]).logits
        token = pick(answer.sequence, contrast(allowed, amateur[-1], plausibility), len(answer.sequence))
        if not answer.add(token):
            return
        (expert,) = yield Feed([[token]])
        (amateur,) = yield Feed([[token]], model=AMATEUR)


def contrast(expert: Float32, amateur: Float32, plausibility: float) -> Float32:
    """Logits of the difference, up to a constant; minus infinity for what is not plausible."""
    plausible = expert >= expert.max() + math.log(plausibility)
    return np.where(plausible, expert - amateur, np.float32(-np.inf))
