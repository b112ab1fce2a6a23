"""The text so far, followed as it grows, is cut back or changes, and what the penalties count of it.

Whoever picks tokens hands over the whole sequence at every step. `History` compares it with what it knows (a
nanosecond for a token) and passes on only the difference, token by token, so that what is counted costs the
same at every length and is right after a draft was rejected or a beam was left. It knows no logits.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.logits.candidates import Tokens


class Follower(Protocol):
    """Something that is counted along."""

    def push(self, tokens: Sequence[int]) -> None:
        """The last of these tokens has just come."""

    def pop(self, tokens: Sequence[int]) -> None:
        """The last of these tokens is about to go."""


F = TypeVar("F", bound=Follower)


class History:
    """The tokens of one sequence. The first `prompt_tokens` of them were given, the rest was generated."""

    def __init__(self, prompt_tokens: int = 0) -> None:
        self.tokens: list[int] = []
        self.prompt_tokens = prompt_tokens
        self._followers: list[Follower] = []

    @property
    def generated(self) -> int:
        """How many tokens are not of the prompt."""
        return len(self.tokens) - self.prompt_tokens

    def watch(self, follower: F) -> F:
        """Keep a follower informed. To be called before the first token."""
        self._followers.append(follower)
        return follower

    def follow(self, sequence: Tokens) -> None:
        """Become this sequence."""
        after = sequence if isinstance(sequence, list) else sequence.tolist()
        tokens = self.tokens
        if after[: len(tokens)] != tokens:
            self._cut(_shared(tokens, after))
        for token in after[len(tokens) :]:
            tokens.append(token)
            for follower in self._followers:
                follower.push(tokens)

    def _cut(self, length: int) -> None:
        while len(self.tokens) > length:
            for follower in self._followers:
                follower.pop(self.tokens)
            self.tokens.pop()


def _shared(one: list[int], other: list[int]) -> int:
    """With how many equal tokens both begin."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if one[least:middle] == other[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least


class Tally:
    """How often each token occurs in a stretch of the text: from `start` on, and at most `last_n` tokens."""

    def __init__(self, start: int = 0, last_n: int | None = None) -> None:
        self._start = start
        self._last_n = last_n
        self._place: dict[int, int] = {}
        self._ids = np.zeros(16, np.intp)
        self._counts = np.zeros(16, np.int64)

    @property
    def ids(self) -> NDArray[np.intp]:
        """The tokens that occur, each once, `[distinct]`."""
        return self._ids[: len(self._place)]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each of `ids` does, `[distinct]`."""
        return self._counts[: len(self._place)]

    def push(self, tokens: Sequence[int]) -> None:
        if len(tokens) > self._start:
            self._add(tokens[-1])
        if (leaving := self._before_window(len(tokens))) is not None:
            self._drop(tokens[leaving])

    def pop(self, tokens: Sequence[int]) -> None:
        if len(tokens) > self._start:
            self._drop(tokens[-1])
        if (returning := self._before_window(len(tokens))) is not None:
            self._add(tokens[returning])

    def _before_window(self, length: int) -> int | None:
        """Index of the token that the last of so many pushed out of the window, if any."""
        index = -1 if self._last_n is None else length - 1 - self._last_n
        return index if index >= self._start else None

    def _add(self, token: int) -> None:
        place = self._place.get(token)
        if place is None:
            place = self._place[token] = len(self._place)
            if place == len(self._ids):
                self._ids, self._counts = np.tile(self._ids, 2), np.tile(self._counts, 2)
            self._ids[place], self._counts[place] = token, 0
        self._counts[place] += 1

    def _drop(self, token: int) -> None:
        place = self._place[token]
        self._counts[place] -= 1
        if not self._counts[place]:  # the last of the tokens takes its place
            del self._place[token]
            last = len(self._place)
            if place < last:
                moved = int(self._ids[last])
                self._ids[place], self._counts[place] = moved, self._counts[last]
                self._place[moved] = place


class Ngrams:
    """Which tokens have followed which `size - 1` others."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._next: dict[tuple[int, ...], dict[int, int]] = {}

    def after(self, tokens: Sequence[int]) -> list[int]:
        """The tokens that would complete an n-gram that occurs already."""
        if len(tokens) < self._size - 1:
            return []
        return [*self._next.get(tuple(tokens[len(tokens) - self._size + 1 :]), ())]

    def push(self, tokens: Sequence[int]) -> None:
        if len(tokens) >= self._size:
            counts = self._next.setdefault(tuple(tokens[-self._size : -1]), {})
            counts[tokens[-1]] = counts.get(tokens[-1], 0) + 1

    def pop(self, tokens: Sequence[int]) -> None:
        if len(tokens) >= self._size:
            counts = self._next[tuple(tokens[-self._size : -1])]
            counts[tokens[-1]] -= 1
            if not counts[tokens[-1]]:
                del counts[tokens[-1]]
