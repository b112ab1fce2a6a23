"""Decoding algorithms. One per file, each a generator that says what to feed and is handed the logits.

A strategy never sees the model, the cache or the loop: it yields `Feed`s and receives, for each of its rows,
the logits of the last `wanted` positions. So every algorithm runs beside every other in one batch, and is
tested by handing it logits.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from inspect import formatannotation
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec

from sardonyx.runtime.backends.base import Float32
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.logits import Pick
from sardonyx.runtime.params import FOR_SAMPLING, SamplingParams


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


PIECE = 128
"""Tokens of a text whose logits are wanted all along: a hundred rows of a vocabulary are memory enough."""


def pieces(tokens: Sequence[int], size: int = PIECE) -> Iterator[Sequence[int]]:
    """Tokens in pieces of `size`; one that would be left alone goes with the last of them."""
    starts = range(0, max(len(tokens) - 1, min(len(tokens), 1)), size)
    for start in starts:
        yield tokens[start:] if start == starts[-1] else tokens[start : start + size]


class Answer(Protocol):
    """Where a strategy puts the tokens it has decided on."""

    sequence: list[int]
    """Prompt and answer so far."""

    @property
    def left(self) -> int:
        """How many tokens may still be added. They all have room in the context."""

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end it."""

    def add(self, token: int) -> bool:
        """Append a token. False when the answer ends with it."""

    def fork(self) -> "Answer":
        """Another answer that has come as far as this one."""


@dataclass(frozen=True)
class Request:
    """What an algorithm is asked for.

    `answers` are to be filled, all to the same prompt. `params` shape the distributions, `seed` fixes the
    noise, and `pick(i)` is the rule by which answer i picks its tokens from logits. `encode` makes token ids
    of any other prompt that an algorithm takes; the models hold `context` positions.
    """

    answers: Sequence[Answer]
    params: SamplingParams
    seed: int
    pick: Callable[[int], Pick]
    encode: Callable[[Any], list[int]]
    context: int

    def only_answer(self, algorithm: str) -> Answer:
        """The answer, for an algorithm that gives one. Raises RequestError if there are to be more."""
        if len(self.answers) > 1:
            raise RequestError(f"{algorithm} gives one answer, not n={len(self.answers)}")
        return self.answers[0]

    def at_most(self, texts: int, option: str) -> None:
        """Raises RequestError if there are to be more answers than the texts that an option provides."""
        if len(self.answers) > texts:
            raise RequestError(
                f"n={len(self.answers)} is more than the texts there will be: {option}={texts}"
            )

    def draws_nothing(self, algorithm: str, besides: str = "") -> None:
        """Raises RequestError for parameters of a draw, one `besides`, where an algorithm draws nothing."""
        neutral = SamplingParams()
        for name in sorted(FOR_SAMPLING - {besides}):
            off = getattr(neutral, name)
            if getattr(self.params, name) != off:
                given = f"{name}={getattr(self.params, name)!r}"
                raise RequestError(f"{given} is for drawing, and {algorithm} draws none: leave it at {off!r}")


class Algorithm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decoding algorithm with its options, named as in Hugging Face's `generate` where that has them.

    Raises RequestError for an option of the wrong type or out of its range.
    """

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            try:
                msgspec.structs.force_setattr(self, field.name, msgspec.convert(value, field.type))
            except msgspec.ValidationError:
                kind = formatannotation(field.type)
                raise RequestError(f"{field.name}={value!r} is not of type {kind}") from None
        self.check()

    def check(self) -> None:
        """Raises RequestError for an option that is out of its range. See `require`."""

    def require(self, name: str, held: bool, range_text: str) -> None:
        """Raises RequestError if what must hold of an option does not."""
        if not held:
            raise RequestError(f"{name}={getattr(self, name)!r} is out of range: it must be {range_text}")

    @property
    def others(self) -> tuple[Any, ...]:
        """The language models that it feeds besides the one asked, all with the same tokens."""
        return ()

    def start(self, request: Request) -> Decoding[Sequence[float] | None]:
        """Begin. The result is what the answers were ranked by, if they were. Raises RequestError for what it
        cannot honour.
        """
        raise NotImplementedError
