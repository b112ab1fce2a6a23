"""Classifier-free guidance: away from what the model would say to another prompt.

Sanchez 2023 (arXiv 2306.17806).
"""

from typing import Annotated, Any

import numpy as np

from sardonyx.runtime.backends.base import Float32
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.logits import Pick
from sardonyx.runtime.params import says
from sardonyx.runtime.strategies import Algorithm, Answer, Decoding, Feed, Request, prompt_fed


class Guidance(Algorithm, frozen=True, kw_only=True):
    """Logits are u + guidance_scale (c - u): c those after the prompt, u those after the `negative_prompt`
    (any prompt; its default is the last token of the prompt, as in transformers), with the same answer behind
    both. 1 is the prompt alone, more follows it more closely, 0 is the negative prompt alone.
    """

    guidance_scale: Annotated[float, says("guidance: above 1 follows the prompt more closely")]
    negative_prompt: Annotated[Any, says("guidance: what to lead away from")] = None

    def start(self, request: Request) -> Decoding[None]:
        answer = request.only_answer("guidance")
        negative = answer.sequence[-1:]
        if self.negative_prompt is not None:
            negative = request.encode(self.negative_prompt)
        if not negative:
            raise RequestError("the negative prompt is empty; give it at least one token")
        if len(negative) + answer.left > request.context:
            raise RequestError(
                f"the negative prompt has {len(negative)} tokens and the answer up to {answer.left}, but the "
                f"model holds {request.context} positions; shorten the prompt or lower max_tokens"
            )
        return guidance(answer, request.pick(0), negative, self.guidance_scale)


def guidance(answer: Answer, pick: Pick, negative: list[int], scale: float) -> Decoding[None]:
    """Decode until the answer is complete, in two rows."""
    conditional = yield from prompt_fed(answer)
    _, unconditional = yield Feed([[], negative], keep=[(0, len(answer.sequence)), (0, 0)])
    while True:
        logits = guided(conditional[-1], unconditional[-1], scale)
        token = pick(answer.sequence, logits, len(answer.sequence))
        if not answer.add(token):
            return
        conditional, unconditional = yield Feed([[token], [token]])


def guided(conditional: Float32, unconditional: Float32, scale: float) -> Float32:
    """Exact where the scale is 0 or 1, and where both are equal. It does not matter to the distribution that
    these are logits instead of log probabilities: both differ by a constant.
    """
    beyond = np.subtract(conditional, unconditional, dtype=np.float64) * (scale - 1)
    return (conditional + beyond).astype(np.float32)
