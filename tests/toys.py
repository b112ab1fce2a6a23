"""Toy language models for strategies, an obvious player of their feeds, and answers without text."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.logits import LogprobLog, Setting, make_picker
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies import Algorithm, Decoding, Request

Logits = Callable[[Sequence[int]], NDArray[np.float32]]
"""From a text to the logits of what follows it."""

GREEDY = SamplingParams()


def toy(vocab: int, seed: int = 0, spread: float = 2.0) -> Logits:
    """A model whose logits depend on every token and its place."""

    def logits(tokens: Sequence[int]) -> NDArray[np.float32]:
        rng = np.random.default_rng([seed, zlib.crc32(bytes(tokens)), len(tokens)])
        return (spread * rng.standard_normal(vocab)).astype(np.float32)

    return logits


def logprobs(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """In float64, from scratch."""
    exact = logits.astype(np.float64)
    return exact - exact.max() - np.log(np.exp(exact - exact.max()).sum())


def logprob(model: Logits, prompt: Sequence[int], tokens: Sequence[int]) -> float:
    """Of tokens after a prompt: what any score is held against."""
    text = list(prompt)
    total = 0.0
    for token in tokens:
        total += logprobs(model(text))[token]
        text.append(token)
    return total


@dataclass
class ToyAnswer:
    """Ends at one of `ends`, or after `limit` tokens."""

    sequence: list[int]
    limit: int = 8
    ends: frozenset[int] = frozenset()
    prompt_tokens: int = -1
    logprobs: LogprobLog | None = None
    prompt_logprobs: LogprobLog | None = None
    forgotten: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0

    def __post_init__(self) -> None:
        self.sequence = [*self.sequence]
        if self.prompt_tokens < 0:
            self.prompt_tokens = len(self.sequence)

    @property
    def tokens(self) -> list[int]:
        return self.sequence[self.prompt_tokens :]

    @property
    def left(self) -> int:
        return self.limit - len(self.tokens)

    def add(self, token: int) -> bool:
        assert self.left > 0, "a token after the end"
        assert not self.ends.intersection(self.tokens), "a token after the end"
        self.sequence.append(token)
        return self.left > 0 and token not in self.ends

    def fork(self) -> "ToyAnswer":
        return ToyAnswer(self.sequence, self.limit, self.ends, self.prompt_tokens)


@dataclass
class Player:
    """Plays the engine with lists for caches. Counts the tokens fed."""

    models: Sequence[Logits]
    hidden: Logits = field(default=lambda tokens: np.zeros(1, np.float32))
    fed: int = 0
    passes: int = 0

    def run(self, strategy: Decoding[Any]) -> Any:
        """What the strategy returns."""
        rows: list[list[list[int]]] = [[] for _ in self.models]
        given = None
        while True:
            try:
                feed = next(strategy) if given is None else strategy.send(given)
            except StopIteration as end:
                return end.value
            before = rows[feed.model]
            if feed.keep is not None:
                assert all(0 <= length <= len(before[row]) for row, length in feed.keep)
                before = [before[row][:length] for row, length in feed.keep]
            elif not before:
                before = [[] for _ in feed.tokens]
            texts = [[*row, *tokens] for row, tokens in zip(before, feed.tokens, strict=True)]
            rows[feed.model] = texts
            self.fed += sum(map(len, feed.tokens))
            self.passes += 1
            ends = [
                range(len(text) - min(feed.wanted, len(tokens)) + 1, len(text) + 1)
                for text, tokens in zip(texts, feed.tokens, strict=True)
            ]
            made = [self.models[feed.model]] + [self.hidden] * feed.hidden
            given = [
                np.array([of(text[:end]) for end in at], np.float32).reshape(len(at), len(of([0])))
                for of in made
                for text, at in zip(texts, ends, strict=True)
            ]


def request(*answers: ToyAnswer, params: SamplingParams = GREEDY, seed: int = 0) -> Request:
    """To fill these answers."""
    setting = Setting(answers[0].prompt_tokens, tuple(answers[0].ends))
    return Request(answers, params, setting, seed, encode=list, context=1000)


def greedily(model: Logits, answer: ToyAnswer) -> list[int]:
    """The tokens of an answer that takes the likeliest token each time."""
    answer = answer.fork()
    while answer.add(int(model(answer.sequence).argmax())):
        pass
    return answer.tokens


def drawn(model: Logits, answer: ToyAnswer, params: SamplingParams, seed: int = 0) -> list[int]:
    """The tokens of an answer that are drawn one by one."""
    answer = answer.fork()
    pick = make_picker(params, seed, Setting(answer.prompt_tokens, tuple(answer.ends)))
    while answer.add(pick(answer.sequence, model(answer.sequence), len(answer.sequence))):
        pass
    return answer.tokens


def decoded(
    algorithm: Algorithm,
    *models: Logits,
    answer: ToyAnswer,
    params: SamplingParams = GREEDY,
    seed: int = 0,
    hidden: Logits = lambda tokens: np.zeros(1, np.float32),
) -> list[int]:
    """The tokens of one answer."""
    answer = answer.fork()
    Player(models, hidden).run(algorithm.start(request(answer, params=params, seed=seed)))
    return answer.tokens
