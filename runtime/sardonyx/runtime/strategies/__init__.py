"""Decoding algorithms. One per file, each a generator that says what to feed and is handed the logits.

A strategy never sees the model, the cache or the loop: it yields `Feed`s and receives, for each of its rows,
the logits of the last `wanted` positions. So every algorithm runs beside every other in one batch, and is
tested by handing it logits.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec

from sardonyx.runtime.backends.base import Float32
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.logits import LogprobLog, Pick, Pipeline, Setting, make_picker, noise_key, pipeline
from sardonyx.runtime.logits.steps import BANS, FEEDBACK, TRUNCATIONS
from sardonyx.runtime.params import SamplingParams, is_given
from sardonyx.runtime.values import checked


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


DRAWING = ("temperature", "dynatemp_range", *TRUNCATIONS, *FEEDBACK)
"""Parameters that say how tokens are drawn."""


class Answer(Protocol):
    """Where a strategy puts the tokens it has decided on."""

    sequence: list[int]
    """Prompt and answer so far."""
    forgotten: int
    """Tokens of it that were left behind, for want of room in the context."""
    logprobs: LogprobLog | None
    prompt_logprobs: LogprobLog | None
    """Where log probabilities are noted, if they were asked for."""
    draft_tokens: int
    accepted_tokens: int
    """Counts of tokens that were guessed, and of those that were right."""

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


def prompt_fed(answer: Answer) -> Decoding[Float32]:
    """Feed the prompt. The result is the logits behind it, `[1 or more, vocab]`.

    If they were asked for, the log probabilities of its tokens are noted; then the logits of all of it are
    wanted, piece by piece.
    """
    log, prompt = answer.prompt_logprobs, answer.sequence
    if log is None:
        (logits,) = yield Feed([prompt])
        return logits
    position = 1
    for piece in pieces(prompt):
        (logits,) = yield Feed([piece], wanted=len(piece))
        known = prompt[position : position + len(piece)]  # what follows the last token is not known yet
        log.note_rows(position, known, logits[: len(known)])
        position += len(piece)
    return logits


@dataclass(frozen=True)
class Request:
    """What an algorithm is asked for.

    `answers` are to be filled, all to the same prompt. `params` shape the distributions, `setting` says of
    what text, and `seed` fixes the noise. `encode` makes token ids of any other prompt that an algorithm
    takes; `context` is how many positions the models hold.
    """

    answers: Sequence[Answer]
    params: SamplingParams
    setting: Setting
    seed: int
    encode: Callable[[Any], list[int]]
    context: int

    def pick(self, i: int) -> Pick:
        """The rule by which answer i picks its tokens. Each has noise of its own, the first by the seed."""
        seed = noise_key(self.seed, -i) if i else self.seed
        return make_picker(self.params, seed, self.setting, self.answers[i].logprobs)

    def shape(self, params: SamplingParams) -> Pipeline:
        """What such parameters make of logits."""
        return pipeline(params, self.setting, self.seed)

    def bans(self) -> Pipeline:
        """What the parameters forbid, and nothing else of them: logits as they are, or minus infinity."""
        asked = {name: getattr(self.params, name) for name in ("profile", "stop_token_ids", *BANS)}
        return self.shape(SamplingParams(temperature=1.0, **asked))

    def only_answer(self, algorithm: str) -> Answer:
        """The answer, for an algorithm that gives one. Raises RequestError if there are to be more."""
        if len(self.answers) > 1:
            raise RequestError(f"{algorithm} gives one answer, not n={len(self.answers)}")
        return self.answers[0]

    def at_most(self, texts: int, option: str) -> None:
        """Raises RequestError if there are to be more answers than the texts that an option provides."""
        if len(self.answers) > texts:
            raise RequestError(f"n={len(self.answers)} is more than there will be: {option}={texts}")

    def draws_nothing(self, algorithm: str, besides: str = "") -> None:
        """Raises RequestError for parameters of a draw, one `besides`, where an algorithm draws nothing."""
        for name in DRAWING:
            if name != besides and is_given(self.params, name):
                given = f"{name}={getattr(self.params, name)!r}"
                off = getattr(SamplingParams(), name)
                raise RequestError(f"{given} is for drawing, and {algorithm} draws none: leave it at {off!r}")

    def no_logprobs(self, algorithm: str, of_prompt: bool = False) -> None:
        """Raises RequestError where log probabilities of tokens, or those `of_prompt` too, are not noted."""
        for name in ("logprobs", "prompt_logprobs")[: 1 + of_prompt]:
            if (value := getattr(self.params, name)) is not None:
                raise RequestError(f"{name}={value}: {algorithm} notes none; score the text")


class Algorithm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decoding algorithm with its options, named as in Hugging Face's `generate` where that has them.

    Raises RequestError for an option of the wrong type or out of its range.
    """

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value = checked(field.name, getattr(self, field.name), field.type)
            msgspec.structs.force_setattr(self, field.name, value)

    @property
    def others(self) -> tuple[Any, ...]:
        """The language models that it feeds besides the one asked, all with the same tokens."""
        return ()

    @property
    def outgrows(self) -> bool:
        """Whether texts may become longer than the context, and be so from the beginning."""
        return False

    def start(self, request: Request) -> Decoding[Sequence[float] | None]:
        """Begin. The result is what the answers were ranked by, if they were. Raises RequestError for what it
        cannot honour.
        """
        raise NotImplementedError
