"""Contrastive search: likely tokens, unless the model's state after them is one it has been in before.

Su 2022 (arXiv 2202.06417).
"""

from typing import Annotated

import msgspec
import numpy as np

from sardonyx.runtime.backends.base import Float32
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.logits import Pipeline
from sardonyx.runtime.params import Share, says
from sardonyx.runtime.probabilities import largest, softmax
from sardonyx.runtime.strategies import Algorithm, Answer, Decoding, Feed, Request, pieces


class ContrastiveSearch(Algorithm, frozen=True, kw_only=True):
    """Of the `top_k` likeliest tokens v take the one with the largest

        (1 - penalty_alpha) p(v) - penalty_alpha max_j cos(h_v, h_j)

    where h_v is the hidden state that v leads to (so all are tried, in one batch), and the h_j are those of
    the text before. 0 is greedy. Needs an artifact that was exported with its hidden states.
    """

    penalty_alpha: Annotated[Share, says("contrastive search: how much being like the text before counts")]

    def start(self, request: Request) -> Decoding[None]:
        request.draws_nothing("contrastive search", besides="top_k")
        answer, params = request.only_answer("contrastive search"), request.params
        if params.top_k < 1:
            raise RequestError(
                "contrastive search tries the top_k likeliest tokens: set top_k, to 4 for example"
            )
        request.no_logprobs("contrastive search", of_prompt=True)
        shape = request.shape(msgspec.structs.replace(params, temperature=1.0, top_k=0))
        return contrastive_search(answer, shape, self.penalty_alpha, params.top_k)


def contrastive_search(answer: Answer, shape: Pipeline, alpha: float, width: int) -> Decoding[None]:
    """Decode until the answer is complete, trying `width` tokens each time."""
    before: list[Float32] = []
    for piece in pieces(answer.sequence):
        logits, states = yield Feed([piece], wanted=len(piece), hidden=True)
        before.append(_unit(states))
    seen = np.concatenate([*before, np.zeros((answer.left, before[0].shape[1]), np.float32)])
    row, following = 0, logits[-1]
    while True:
        length = len(answer.sequence)
        ids, shaped = shape(answer.sequence, following)
        tried = largest(shaped, width)
        tokens = ids[tried].tolist()
        given = yield Feed([[token] for token in tokens], keep=[(row, length)] * len(tokens), hidden=True)
        led_to = _unit(np.concatenate(given[len(tokens) :]))  # [tried, hidden]
        likeness = (led_to @ seen[:length].T).max(axis=1)
        row = int(np.argmax((1 - alpha) * softmax(shaped)[tried] - alpha * likeness))
        if not answer.add(tokens[row]):
            return
        seen[length] = led_to[row]
        following = given[row][-1]


def _unit(states: Float32) -> Float32:
    """States `[n, hidden]` at length 1, so that a product is a cosine."""
    norms = np.linalg.norm(states, axis=1, keepdims=True)
    unit: Float32 = states / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit
