"""Rules that learn from what was picked: mirostat and adaptive-p, each with a state for one request.

The state belongs to a position. Coming back to an earlier position, as when a draft was rejected, finds the
state that was there. Nothing here draws.
"""

import math
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

import numpy as np

from sardonyx.runtime.logits.candidates import Candidates, Float64, Row, log_total
from sardonyx.runtime.logits.truncation import top_k

Surprise: TypeAlias = Literal["full", "kept"]
"""Which distribution mirostat measures surprise by: the model's, or what is left of it, renormalised."""

MEASURED = 100
"""So many of the likeliest tokens, mirostat 1 estimates the exponent of Zipf's law from."""


class Feedback(Protocol):
    """What the picker needs of such a rule, in this order for each token."""

    def shape(self, candidates: Candidates, position: int) -> Candidates:
        """What is drawn from."""

    def learn(self, token: int) -> None:
        """Which token was picked of the candidates shaped last."""


NOTHING = Candidates(np.zeros(0, np.int32), np.zeros(0, np.float32))

S = TypeVar("S")


class Course(Generic[S]):
    """A state for each position, from the first one asked for on."""

    def __init__(self, first: S) -> None:
        self._first = first
        self._states: list[S] = []
        self._start = 0

    def at(self, position: int) -> S:
        """The state at a position. Those behind it are forgotten."""
        if not self._states or position < self._start:
            self._start, self._states = position, [self._first]
        del self._states[position - self._start + 1 :]
        return self._states[position - self._start]

    def then(self, state: S) -> None:
        """The state at the position behind the one asked for last."""
        self._states.append(state)


class Mirostat:
    """Holds the surprise of the text (-log2 p of its tokens) near `tau` bits. Basu 2020 (arXiv 2007.14966).

    The greatest surprise allowed, mu, begins at 2 tau and after each token loses eta times the excess of its
    surprise over tau. Version 2 keeps the tokens of surprise mu or less; version 1 as many as have that
    surprise under a Zipf law fitted to the likeliest. At least one token stays.
    """

    def __init__(self, version: int, tau: float, eta: float, surprise: Surprise) -> None:
        self._version = version
        self._tau = tau
        self._eta = eta
        self._surprise = surprise
        self._course = Course(2 * tau)
        self._mu = 2 * tau
        self._measure = NOTHING
        self._log_total = 0.0

    def shape(self, candidates: Candidates, position: int) -> Candidates:
        self._mu = self._course.at(position)
        total = log_total(candidates.logits) if self._version == 2 or self._surprise == "full" else 0.0
        kept = self._kept(candidates, total)
        whole = self._surprise == "full"
        self._measure = candidates if whole else kept
        self._log_total = total if whole else log_total(kept.logits)
        return kept

    def learn(self, token: int) -> None:
        surprise = (self._log_total - logit_of(token, self._measure)) / math.log(2)
        self._course.then(self._mu - self._eta * (surprise - self._tau))

    def _kept(self, candidates: Candidates, total: float) -> Candidates:
        logits = candidates.logits
        if self._version == 1:
            measured = min(MEASURED, len(logits))
            likeliest = np.sort(np.partition(logits, -measured)[-measured:])[::-1].astype(np.float64)
            return top_k(zipf_count(likeliest, self._mu, len(logits)))(candidates)
        least = min(total - self._mu * math.log(2), float(logits.max()))
        return candidates.keep(np.flatnonzero(logits >= np.float32(least)))


def logit_of(token: int, candidates: Candidates) -> float:
    """Of one of the candidates."""
    return float(candidates.logits[np.searchsorted(candidates.ids, token)])


def zipf_exponent(logits: Float64) -> float:
    """s of p ~ rank ** -s that fits logits best, which are given likeliest first. 0 for fewer than two."""
    possible = logits[logits > -np.inf]
    t = np.diff(np.log(np.arange(1, len(possible) + 1)))
    return float(t @ -np.diff(possible)) / float(t @ t) if len(t) else 0.0


def zipf_count(logits: Float64, mu: float, vocab: int) -> int:
    """How many of `vocab` tokens have a surprise of up to mu bits under a Zipf law fitted to the likeliest.

    ((e * 2 ** mu) / (1 - vocab ** -e)) ** (1 / s) with e = s - 1, in logarithms; e / (1 - vocab ** -e)
    becomes 1 / ln vocab where s is 1.
    """
    s = zipf_exponent(logits)
    if s <= 0:
        return vocab
    e, most = s - 1, math.log(vocab)
    denominator = -math.expm1(-e * most) / e if e and most else max(most, 1e-9)
    count = (mu * math.log(2) - math.log(denominator)) / s
    return max(1, int(math.exp(min(count, most))))


class AdaptiveP:
    """Steers the probability of what is picked towards `target`, on average of about 1 / (1 - decay) tokens.

    Logits become 5 - 10 d^2 / (1 + d), where d is the distance of a token's probability from the target,
    corrected by twice what the average is off it, in units of 0.3. llama.cpp, pull request 17927.
    """

    PEAK, SHARPNESS, WIDTH = 5.0, 10.0, 0.3

    def __init__(self, target: float, decay: float) -> None:
        self._target = target
        self._decay = decay
        self._course = Course((target / (1 - decay), 1 / (1 - decay)))  # as if the target had always been met
        self._state = (0.0, 1.0)
        self._before = NOTHING
        self._log_total = 0.0

    def shape(self, candidates: Candidates, position: int) -> Candidates:
        total, weight = self._state = self._course.at(position)
        self._before = candidates
        self._log_total = log_total(candidates.logits)
        wanted = min(max(2 * self._target - total / weight, 0.0), 1.0)
        distance: Row = candidates.logits - np.float32(self._log_total)
        np.exp(distance, out=distance)  # in place: fresh arrays would cost more than the arithmetic
        distance -= np.float32(wanted)
        np.abs(distance, out=distance)
        distance /= np.float32(self.WIDTH)
        logits = distance * distance
        logits /= distance + 1
        logits *= np.float32(-self.SHARPNESS)
        logits += np.float32(self.PEAK)
        logits[candidates.logits == -np.inf] = -np.inf
        return Candidates(candidates.ids, logits)

    def learn(self, token: int) -> None:
        probability = math.exp(logit_of(token, self._before) - self._log_total)
        total, weight = self._state
        self._course.then((probability + self._decay * total, 1 + self._decay * weight))
