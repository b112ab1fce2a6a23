"""Ensembling: several models decide on each token together."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from sardonyx.runtime.backends.base import Float32
from sardonyx.runtime.logits import Pick
from sardonyx.runtime.probabilities import log_softmax
from sardonyx.runtime.strategies import Algorithm, Answer, Decoding, Feed, Request


class Ensemble(Algorithm, frozen=True, kw_only=True):
    """Sample from the mean of the distributions of the model asked and of `models`, `LLM`s with the same
    tokens: an arithmetic mean, sum w p, or a geometric one, prod p^w. The first of `weights` is that of the
    model asked; they count relative to their sum, and are equal by default.
    """

    models: tuple[Any, ...]
    weights: tuple[float, ...] = ()
    mean: Literal["arithmetic", "geometric"] = "arithmetic"

    def check(self) -> None:
        count = 1 + len(self.models)
        self.require("models", count > 1, "one model at least")
        self.require("weights", len(self.weights) in (0, count), f"one for each of the {count} models")
        positive = all(0 <= weight < math.inf for weight in self.weights) and (
            not self.weights or any(self.weights)
        )
        self.require("weights", positive, "finite numbers of at least 0, and not all of them 0")

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
    tokens = answer.sequence
    while True:
        opinions = []
        for model in range(len(weights)):
            (logits,) = yield Feed([tokens], model=model)
            opinions.append(logits[-1])
        token = pick(answer.sequence, mixed(opinions, weights), len(answer.sequence))
        if not answer.add(token):
            return
        tokens = [token]


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
