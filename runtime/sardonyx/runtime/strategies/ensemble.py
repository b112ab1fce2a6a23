"""Ensembling: several models decide on each token together."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np

from sardonyx.runtime.backends.base import Float32
from sardonyx.runtime.logits import Pick
from sardonyx.runtime.params import Amount, says
from sardonyx.runtime.probabilities import log_softmax
from sardonyx.runtime.strategies import Algorithm, Answer, Decoding, Feed, Request, prompt_fed
from sardonyx.runtime.values import out_of_range


class Ensemble(Algorithm, frozen=True, kw_only=True):
    """Sample from the mean of the distributions of the model asked and of `models`, `LLM`s with the same
    tokens: an arithmetic mean, sum w p, or a geometric one, prod p^w. The first of `weights` is that of the
    model asked; they count relative to their sum, and are equal by default.
    """

    models: Annotated[tuple[Any, ...], says("ensemble: the models that decide together with this one")]
    weights: Annotated[tuple[Amount, ...], says("ensemble: how much this model and each of them counts")] = ()
    mean: Annotated[Literal["arithmetic", "geometric"], says("ensemble: of what kind it is")] = "arithmetic"

    def __post_init__(self) -> None:
        super().__post_init__()
        count = 1 + len(self.models)
        if count == 1:
            raise out_of_range("models", self.models, "one model at least")
        if self.weights and (len(self.weights) != count or not any(self.weights)):
            raise out_of_range("weights", self.weights, f"{count} numbers, one above 0 at least")

    @property
    def others(self) -> tuple[Any, ...]:
        return self.models

    def start(self, request: Request) -> Decoding[None]:
        answer = request.only_answer("an ensemble")
        weights = np.array(self.weights or [1.0] * (1 + len(self.models)))
        return ensemble(answer, request.pick(0), (weights / weights.sum()).tolist(), self.mean)


def ensemble(answer: Answer, pick: Pick, weights: Sequence[float], mean: str) -> Decoding[None]:
    """Decode until the answer is complete, with one model for each weight, in step. Weights sum to 1."""
    mixed = {"arithmetic": arithmetic, "geometric": geometric}[mean]
    opinions = [(yield from prompt_fed(answer))]
    for model in range(1, len(weights)):
        opinions += yield Feed([answer.sequence], model=model)
    while True:
        logits = mixed([rows[-1] for rows in opinions], weights)
        token = pick(answer.sequence, logits, len(answer.sequence))
        if not answer.add(token):
            return
        opinions = []
        for model in range(len(weights)):
            opinions += yield Feed([[token]], model=model)


def arithmetic(opinions: Sequence[Float32], weights: Sequence[float]) -> Float32:
    """ln of the weighted sum of the probabilities, from logits."""
    terms = [
        log_softmax(row) + np.float32(math.log(w)) for row, w in zip(opinions, weights, strict=True) if w
    ]
    mixed: Float32 = np.logaddexp.reduce(terms)
    return mixed


def geometric(opinions: Sequence[Float32], weights: Sequence[float]) -> Float32:
    """The weighted sum of logits: up to a constant that of log probabilities."""
    terms = [np.float32(w) * row for row, w in zip(opinions, weights, strict=True) if w]
    mixed: Float32 = np.sum(terms, axis=0)
    return mixed
