"""Log-probabilities of tokens, each with the likeliest alternatives. Knows no rule for choosing."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from sardonyx.runtime.logits.candidates import Candidates, Row, everything, log_total, ranking


class Alternative(NamedTuple):
    """A token and ln of its probability."""

    token: int
    logprob: float


@dataclass(frozen=True)
class TokenLogprobs:
    """ln of the probability that a token had, and the likeliest tokens at its place, likeliest first."""

    token: int
    logprob: float
    top: tuple[Alternative, ...]


def token_logprobs(candidates: Candidates, token: int, top: int) -> TokenLogprobs:
    """What the softmax of the candidates' logits says of a token. One that is not among them has -inf.

    Of equals, the lowest ids come first; what is impossible is no alternative.
    """
    ids, logits = candidates
    excess = log_total(logits)
    place = int(np.searchsorted(ids, token))
    known = place < len(ids) and ids[place] == token
    if 0 < top < len(ids):
        likeliest = np.flatnonzero(logits >= np.partition(logits, -top)[-top])
    else:
        likeliest = np.arange(len(ids) if top else 0)
    likeliest = likeliest[ranking(logits[likeliest])][:top]
    return TokenLogprobs(
        token,
        float(logits[place]) - excess if known else -np.inf,
        tuple(Alternative(int(ids[i]), float(logits[i]) - excess) for i in likeliest if logits[i] > -np.inf),
    )


class LogprobLog:
    """Log-probabilities by position, as an answer takes shape. What comes again replaces what was there."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._at: dict[int, TokenLogprobs] = {}

    def note(self, position: int, token: int, candidates: Candidates) -> None:
        """A token picked, and what it was picked from."""
        self._at[position] = token_logprobs(candidates, token, self._top)

    def note_rows(self, position: int, tokens: Iterable[int], rows: Iterable[Row]) -> None:
        """Tokens from a position on that were given, each with the model's logits for its place."""
        for place, (token, row) in enumerate(zip(tokens, rows, strict=True), position):
            self.note(place, token, everything(row))

    def fork(self) -> "LogprobLog":
        """Another log that has come as far as this one."""
        twin = LogprobLog(self._top)
        twin._at = self._at.copy()
        return twin

    def read(self, start: int, stop: int) -> tuple[TokenLogprobs, ...]:
        """Those of the positions from `start` to before `stop`, or to the first that has not been noted."""
        noted = takewhile(self._at.__contains__, range(start, stop))
        return tuple(self._at[position] for position in noted)
