"""Prompt lookup: guess that the text goes on as it did before, and check several guesses in one pass.

Nothing is lost by it: each token is picked from the model's own logits, as if it were fed alone, and noise is
a hash of its position. Only the last bits of logits depend on how many tokens are fed at once; what decides
ties that close is not the text but the kernel, unless the engine is exact. Saxena 2023 (Prompt Lookup
Decoding); Leviathan 2022 (arXiv 2211.17192).
"""

from typing import Annotated

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sardonyx.runtime.logits import Pick
from sardonyx.runtime.params import PositiveCount, says
from sardonyx.runtime.strategies import Algorithm, Answer, Decoding, Feed, Request, prompt_fed


class PromptLookup(Algorithm, frozen=True, kw_only=True):
    """Draft up to `prompt_lookup_num_tokens` tokens at a time: those that followed the last place in the text
    where its end, as many tokens of it as were found, up to `max_matching_ngram_size`, occurred before.

    Drafts grow while they are right, and shrink when they are not.
    """

    prompt_lookup_num_tokens: Annotated[PositiveCount, says("prompt lookup: the most tokens guessed at once")]
    max_matching_ngram_size: Annotated[PositiveCount, says("prompt lookup: tokens that have to match")] = 2

    def start(self, request: Request) -> Decoding[None]:
        return prompt_lookup(request.only_answer("prompt lookup"), request.pick(0), self)


def prompt_lookup(answer: Answer, pick: Pick, options: PromptLookup) -> Decoding[None]:
    """Decode until the answer is complete."""
    logits = (yield from prompt_fed(answer))[-1:]
    draft: list[int] = []
    most = options.prompt_lookup_num_tokens
    length = most
    while True:
        right = 0
        for row in logits:
            token = pick(answer.sequence, row, len(answer.sequence))
            guessed = draft[right : right + 1] == [token]
            answer.accepted_tokens += guessed
            if not answer.add(token):
                return
            if not guessed:
                break
            right += 1
        if draft:
            length = min(most, 2 * length) if right == len(draft) else right + 1
        draft = continuation(answer.sequence, options.max_matching_ngram_size, min(length, answer.left - 1))
        answer.draft_tokens += len(draft)
        known = len(answer.sequence) - 1
        (logits,) = yield Feed([[token, *draft]], keep=[(0, known)], wanted=1 + len(draft))


def continuation(text: list[int], ngram: int, length: int) -> list[int]:
    """Up to `length` tokens that followed where the longest possible end of the text, of `ngram` tokens at
    most, occurred before: the last time that enough followed, else the first time.
    """
    tokens = np.array(text)
    for size in range(min(ngram, len(text) - 1), 0, -1):
        windows = sliding_window_view(tokens[:-1], size)
        (starts,) = np.nonzero((windows == tokens[-size:]).all(axis=1))
        if len(starts):
            enough = starts[starts + size + length <= len(text)]
            start = int(enough[-1] if len(enough) else starts[0]) + size
            return text[start : start + length]
    return []
