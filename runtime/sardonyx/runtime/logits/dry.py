"""DRY ("don't repeat yourself"): the longer a passage that a token would go on repeating, the less likely.

Weidmann 2024 (text-generation-webui, pull request 5677; llama.cpp, pull request 9702). For a token v, let n
be the length of the longest end of the text that occurs earlier with v behind it. From `allowed_length` on, v
loses multiplier * base ** (n - allowed_length). Sequence breakers end the passage, and are never penalised
themselves. It knows tokens, not the strings that breakers are given as.
"""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.logits.candidates import Processor, Row
from sardonyx.runtime.logits.penalties import rewrite

REPLAYED = 16
"""So many tokens are caught up with, one by one, before it is worth while to begin anew."""


class Repeats:
    """For each place of the text, how many tokens before it are the same as the last ones of the text.

    One vector operation as long as the text for each new token: where the new token stands, the number before
    it plus one, elsewhere 0.
    """

    def __init__(self, breakers: Collection[tuple[int, ...]] = (), last_n: int | None = None) -> None:
        self._breakers: dict[int, list[tuple[int, ...]]] = {}
        for breaker in breakers:
            self._breakers.setdefault(breaker[-1], []).append(breaker)
        self._last_n = last_n
        self._text = np.zeros(64, np.int32)
        self._length = 0
        self._breaks: list[int] = []  # lengths at which the text ended with a breaker
        self._repeated = np.zeros(0, np.int32)

    def is_breaker(self, token: int) -> bool:
        """Whether a token is a breaker by itself."""
        return (token,) in self._breakers.get(token, ())

    def push(self, tokens: Sequence[int]) -> None:
        if self._length == len(self._text):
            self._text = np.tile(self._text, 2)
        self._text[self._length] = tokens[-1]
        self._length += 1
        candidates = self._breakers.get(tokens[-1], ())
        if any(tuple(tokens[-len(breaker) :]) == breaker for breaker in candidates):
            self._breaks.append(self._length)

    def pop(self, tokens: Sequence[int]) -> None:
        if self._breaks and self._breaks[-1] == self._length:
            self._breaks.pop()
        self._length -= 1
        if len(self._repeated) > self._length:
            self._repeated = self._repeated[:0]

    def continued(self, least: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Tokens that would continue a repeat of at least so many tokens, and of how many: by ascending
        length, tokens more than once.
        """
        text, repeated = self._text[: self._length], self._catch_up()
        start = 0 if self._last_n is None else max(0, self._length - self._last_n)
        limit = self._length - (self._breaks[-1] if self._breaks else 0)
        within = np.minimum(
            repeated[start:], np.arange(self._length - start)
        )  # nothing from before the window
        places = np.flatnonzero(within >= least)
        lengths = np.minimum(within[places], limit) if limit >= least else within[:0]
        order = np.argsort(lengths, kind="stable")
        return text[start:][places[order]], lengths[order]

    def _catch_up(self) -> NDArray[np.int32]:
        behind = self._length - len(self._repeated)
        if behind <= REPLAYED and len(self._repeated):
            self._repeated = self._replay(self._repeated)
        else:
            self._repeated = self._begin_anew()
        return self._repeated

    def _begin_anew(self) -> NDArray[np.int32]:
        """Replaying only the last tokens finds all repeats that are no longer than those."""
        replayed = REPLAYED
        while True:
            since = max(0, self._length - replayed)
            repeated = self._replay(np.zeros(since, np.int32))
            if since == 0 or repeated.max(initial=0) < replayed:
                return repeated
            replayed *= 2

    def _replay(self, repeated: NDArray[np.int32]) -> NDArray[np.int32]:
        for length in range(len(repeated), self._length):
            longer = np.zeros(length + 1, np.int32)
            np.multiply(repeated + 1, self._text[:length] == self._text[length], out=longer[1:])
            repeated = longer
        return repeated


def dry(multiplier: float, base: float, allowed_length: int, repeats: Repeats) -> Processor:
    """The penalty."""

    def process(row: Row) -> None:
        tokens, lengths = repeats.continued(allowed_length)
        longest = dict(zip(tokens.tolist(), lengths.tolist(), strict=True))  # the last, and longest, wins
        worst = [(token, length) for token, length in longest.items() if not repeats.is_breaker(token)]
        if worst:
            ids, excess = np.array(worst, np.intp).T
            with np.errstate(over="ignore"):
                loss = multiplier * np.float64(base) ** (excess - allowed_length)
            rewrite(row, ids, row[ids] - loss)

    return process
