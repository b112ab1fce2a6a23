"""How likely texts are that were given, and which of them is likeliest. Holds numbers, computes none anew."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sardonyx.runtime.errors import RequestError

Normalization: TypeAlias = Literal["tokens", "bytes"]


@dataclass(frozen=True)
class ScoredText:
    """A candidate with the log probability of each of its tokens, and what it is ranked by: their sum, or
    that divided by its tokens or its bytes.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float

    @property
    def logprob(self) -> float:
        """ln of the probability of the text."""
        return math.fsum(self.logprobs)


@dataclass(frozen=True)
class Scores:
    """Candidates in the order in which they were given."""

    candidates: tuple[ScoredText, ...]

    @property
    def best(self) -> ScoredText:
        """The candidate with the highest score; of equals the first."""
        return max(self.candidates, key=lambda candidate: candidate.score)

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Of each candidate, if it is one of them: softmax of the scores."""
        top = self.best.score
        weights = [math.exp(candidate.score - top) for candidate in self.candidates]
        return tuple(weight / math.fsum(weights) for weight in weights)


def scored(
    text: str, tokens: Sequence[int], logprobs: Sequence[float], normalize: Normalization | None
) -> ScoredText:
    """A candidate. `normalize` counts its tokens, or its bytes in UTF-8, at least one."""
    counts = {None: 1, "tokens": len(tokens), "bytes": max(1, len(text.encode()))}
    if normalize not in counts:
        raise RequestError(f"normalize={normalize!r} is out of range: it must be None, tokens or bytes")
    return ScoredText(text, tuple(tokens), tuple(logprobs), math.fsum(logprobs) / counts[normalize])
