"""One of several answers to the same prompt: the best by some measure, or the one that most agree on."""

import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from sardonyx.runtime.answer import Completion
from sardonyx.runtime.errors import RequestError

NUMBER = re.compile(r"(?:(?<!\w)-)?\d+(?:,\d{3})*(?:\.\d+)?")


def mean_logprob(completion: Completion) -> float:
    """The mean log probability of its tokens, as the model has them. They must have been asked for."""
    if not completion.logprobs:
        raise ValueError("the completion has no log probabilities: ask for them with logprobs=0")
    return math.fsum(token.logprob for token in completion.logprobs) / len(completion.logprobs)


def ranked(completions: Sequence[Completion], scorer: Callable[[Completion], float]) -> list[Completion]:
    """Best first, of equals the first one given, each with its score."""
    scored = [replace(completion, score=scorer(completion)) for completion in completions]
    return sorted(scored, key=lambda completion: -(completion.score or 0.0))


def last_number(text: str) -> Decimal | None:
    """The last number in a text, whatever way it is written: "1,000" is 1000.0."""
    found = NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None


def last_match(pattern: str) -> Callable[[str], str | None]:
    """What finds the last match of a regular expression, or of its first group if it has one.

    Raises RequestError for what is none.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise RequestError(f"{pattern!r} is no regular expression: {error}") from None

    def extract(text: str) -> str | None:
        *_, last = None, *expression.finditer(text)
        return last and last[min(1, expression.groups)]

    return extract


@dataclass(frozen=True)
class Consensus:
    """What most answers come to.

    `votes` counts every value found, most first; `unparsed` answers had none. `completion` is the likeliest
    of those that come to `value`; both are None when there was no vote.
    """

    value: Hashable | None
    completion: Completion | None
    votes: Mapping[Hashable, int]
    unparsed: int
    completions: tuple[Completion, ...]


def majority(completions: Sequence[Completion], extract: Callable[[str], Hashable | None]) -> Consensus:
    """Vote on what `extract` finds in each text (None: nothing). Wang 2022 (arXiv 2203.11171).

    A tie goes to the value whose answers are likelier on average, then to that found first.
    """
    camps: dict[Hashable, list[Completion]] = {}
    unparsed = 0
    for completion in completions:
        value = extract(completion.text)
        if value is None:
            unparsed += 1
        else:
            camps.setdefault(value, []).append(completion)

    def strength(value: Hashable) -> tuple[int, float]:
        camp = camps[value]
        return len(camp), math.fsum(map(mean_logprob, camp)) / len(camp)

    order = sorted(camps, key=strength, reverse=True)
    votes = {value: len(camps[value]) for value in order}
    winner = max(camps[order[0]], key=mean_logprob) if order else None
    return Consensus(order[0] if order else None, winner, votes, unparsed, tuple(completions))
