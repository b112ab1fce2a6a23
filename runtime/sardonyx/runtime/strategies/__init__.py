"""Decoding algorithms. One per file, each a generator that says what to feed and is handed the logits.

A strategy never sees the model, the cache or the loop: it yields `Feed`s and receives, for each of its rows,
the logits of the last `wanted` positions. So every algorithm runs beside every other in one batch, and is
tested by handing it logits.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from sardonyx.runtime.backends.base import Float32


@dataclass(frozen=True)
class Feed:
    """New tokens for each of a strategy's rows.

    `keep` says first which cached positions the rows begin with: for each row the parent row and a length.
    None: all rows as they are, or new ones if there are none. `wanted` is the number of last positions of
    each row whose logits are handed back: 0 for none, all of a row that has fewer. With `hidden`, the hidden
    states of these positions follow. `model` says which of the strategy's models is fed, each having rows of
    its own: 0 is the one that was asked, the others are those it was submitted with.
    """

    tokens: Sequence[Sequence[int]]
    keep: Sequence[tuple[int, int]] | None = None
    wanted: int = 1
    hidden: bool = False
    model: int = 0


Result = TypeVar("Result", covariant=True)

Decoding: TypeAlias = Generator[Feed, Sequence[Float32], Result]
"""Receives one array `[wanted, vocab]` for each row fed, to keep if it likes; for `hidden` then one
`[wanted, hidden_size]` for each row. What it returns is its result.
"""

Strategy: TypeAlias = Decoding[Any]
"""A decoding whose result is not looked at."""


class Answer(Protocol):
    """Where a strategy puts the tokens it has decided on."""

    sequence: list[int]
    """Prompt and answer so far."""

    def add(self, token: int) -> bool:
        """Append a token. False when the answer ends with it."""
