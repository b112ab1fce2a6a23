"""Biases and bans: what is asked for or forbidden token by token, whatever the model says.

Each changes a row in place; a ban is minus infinity. Words are given as the tokens they consist of: nothing
here knows of text.
"""

from collections.abc import Collection, Mapping

import numpy as np

from sardonyx.runtime.logits.candidates import Processor, Row
from sardonyx.runtime.logits.history import History, Ngrams
from sardonyx.runtime.logits.penalties import rewrite


def logit_bias(bias: Mapping[int, float]) -> Processor:
    """Add to the logits of some tokens."""
    ids, amounts = np.array([*bias], np.intp), np.array([*bias.values()], np.float64)

    def process(row: Row) -> None:
        rewrite(row, ids, row[ids] + amounts)

    return process


def allowed_token_ids(allowed: Collection[int]) -> Processor:
    """Forbid all others."""
    ids = np.array([*allowed], np.intp)

    def process(row: Row) -> None:
        kept = row[ids]
        row[:] = -np.inf
        row[ids] = kept

    return process


def suppress_tokens(banned: Collection[int]) -> Processor:
    """Forbid some tokens everywhere."""
    ids = np.array([*banned], np.intp)

    def process(row: Row) -> None:
        row[ids] = -np.inf

    return process


def begin_suppress_tokens(banned: Collection[int], history: History) -> Processor:
    """Forbid some tokens as the first of the answer."""
    return _while(history, 1, suppress_tokens(banned))


def forced_bos_token_id(token: int, history: History) -> Processor:
    """Forbid all but one token as the first of the answer."""

    def process(row: Row) -> None:
        row[:] = -np.inf
        row[token] = 0

    return _while(history, 1, process)


def min_tokens(least: int, ends: Collection[int], history: History) -> Processor:
    """Forbid what ends the answer until it has so many tokens."""
    return _while(history, least, suppress_tokens(ends))


def bad_words(words: Collection[tuple[int, ...]], history: History, start: int) -> Processor:
    """Forbid a word's last token where the text from `start` on ends with the others."""

    def process(row: Row) -> None:
        tokens = history.tokens[max(start, len(history.tokens) - reach) :]
        for *others, last in words:
            if not others or tokens[-len(others) :] == others:
                row[last] = -np.inf

    reach = max(map(len, words))
    return process


def no_repeat_ngram_size(ngrams: Ngrams, history: History) -> Processor:
    """Forbid what would complete an n-gram a second time. Paulus 2017 (arXiv 1705.04304)."""

    def process(row: Row) -> None:
        row[ngrams.after(history.tokens)] = -np.inf

    return process


def _while(history: History, tokens: int, process: Processor) -> Processor:
    """Only until the answer has so many tokens."""

    def early(row: Row) -> None:
        if history.generated < tokens:
            process(row)

    return early
