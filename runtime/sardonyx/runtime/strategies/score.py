"""Scoring: how likely the model finds texts that are given."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

from sardonyx.runtime.backends.base import Float32
from sardonyx.runtime.probabilities import log_sum
from sardonyx.runtime.strategies import Decoding, Feed, pieces

ROWS = 16
"""Candidates fed side by side: each holds a copy of the prompt's cache."""
LENGTH = 15
"""Tokens of each fed at once: with one more, still so few that all go in one pass."""


def score(prompt: Sequence[int], candidates: Sequence[Sequence[int]]) -> Decoding[list[list[float]]]:
    """Log probability of every token of each candidate, as it follows the prompt, of one token at least, and
    the tokens before it. What candidates have in common is computed once.
    """
    shared = shared_beginning(candidates)
    known: list[float] = []
    fed = 0
    for piece in pieces([*prompt, *shared]):
        fed += len(piece)
        (logits,) = yield Feed([piece], wanted=min(len(piece), max(0, fed - len(prompt) + 1)))
        known += _logprobs(logits, shared[len(known) :])
    scores = []
    for start in range(0, len(candidates), ROWS):
        some = candidates[start : start + ROWS]
        found = [known + list(_logprobs(logits[-1:], tokens[len(shared) :])) for tokens in some]
        forks = [(0, fed)] * (1 + len(some))  # the first row stays as it is, for those to come
        for turn, parts in enumerate(_turns([tokens[len(shared) : -1] for tokens in some])):
            _, *given = yield Feed([[], *parts], keep=None if turn else forks, wanted=LENGTH + 1)
            for have, tokens, rows in zip(found, some, given, strict=True):
                have += _logprobs(rows, tokens[len(have) :])
        scores += found
    return scores


def shared_beginning(texts: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that all texts begin with."""
    together = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*texts, strict=False))
    return [tokens[0] for tokens in together]


def _logprobs(logits: Float32, tokens: Sequence[int]) -> Iterator[float]:
    """Of tokens, each by its row of logits; those that have none are left out."""
    for row, token in zip(logits, tokens, strict=False):
        yield float(row[token]) - log_sum(row)


def _turns(texts: Sequence[Sequence[int]]) -> Iterable[list[Sequence[int]]]:
    """Pieces of all texts side by side, until the longest has ended."""
    cut = [list(pieces(text, LENGTH)) for text in texts]
    for turn in range(max(map(len, cut))):
        yield [parts[turn] if turn < len(parts) else [] for parts in cut]
