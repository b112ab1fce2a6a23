"""One answer in the making: tokens in, readable text out, and the decision when it ends. Knows no model."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

from sardonyx.runtime.logits import LogprobLog, TokenLogprobs
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.stop import StopStrings
from sardonyx.runtime.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Usage:
    """What a request took. Times in seconds from the moment it was made; 0 before the first token."""

    prompt_tokens: int
    completion_tokens: int
    first_token_s: float
    total_s: float
    run_s: float
    """Of `total_s`, the time inside the inference library, for whatever else was in the batch too."""
    cached_tokens: int = 0
    """Of `prompt_tokens`, those that were known from a text that began alike, and not computed again."""
    forgotten_tokens: int = 0
    """Of prompt and answer, those that were left behind because the text outgrew the context."""
    draft_tokens: int = 0
    accepted_tokens: int = 0
    """Tokens guessed ahead, to be checked several at once, and how many of them were right."""

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed: tokens after the first over the time after the first. 0 for a single token."""
        seconds = self.total_s - self.first_token_s
        return (self.completion_tokens - 1) / seconds if self.completion_tokens > 1 and seconds > 0 else 0.0


@dataclass(frozen=True)
class Completion:
    """A finished (or, while streaming and after an error, unfinished: `finish_reason` None) answer.

    `tokens` are all that were generated, an end token included; `text` leaves out special tokens, the token
    that ended it and a matched stop string. `logprobs`, of each token, and `prompt_logprobs`, None for the
    first of the prompt, are there if they were asked for, and `score` if the algorithm ranks answers by one.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason | None
    usage: Usage
    logprobs: tuple[TokenLogprobs, ...] | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    score: float | None = None


class Stopwatch:
    """Times of one request, counted from when this is made.

    `run_s` tells the seconds spent inside the inference library so far, for whomever.
    """

    def __init__(self, run_s: Callable[[], float]) -> None:
        self.first_token_s = 0.0
        self.total_s = 0.0
        self.run_s = 0.0
        self._clock = run_s
        self._run_before = run_s()
        self._started = perf_counter()

    def note(self) -> None:
        """A token has come, or the end."""
        self.total_s = perf_counter() - self._started
        self.run_s = self._clock() - self._run_before
        self.first_token_s = self.first_token_s or self.total_s


class TextAnswer:
    """Collects tokens until a stop token, a stop string, the token limit or the end of the context."""

    def __init__(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        tokenizer: Tokenizer,
        room: int,
        watch: Stopwatch,
    ) -> None:
        """`room` is the number of tokens that fit behind the prompt."""
        self.sequence = list(prompt)
        self.finish_reason: FinishReason | None = None
        self.text = ""
        self.forgotten = 0
        self.logprobs = None if params.logprobs is None else LogprobLog(params.logprobs)
        self.prompt_logprobs = None if params.prompt_logprobs is None else LogprobLog(params.prompt_logprobs)
        self.draft_tokens = 0
        self.accepted_tokens = 0
        self._prompt_tokens = len(prompt)
        self._least = params.min_tokens
        self._limit = min(params.max_tokens or room, room)
        self._stop_ids = frozenset(params.stop_token_ids)
        self._detokenizer = tokenizer.detokenizer()
        self._stops = StopStrings(params.stop)
        self._watch = watch
        self._shown = 0

    @property
    def left(self) -> int:
        """How many tokens may still be added. They all have room in the context."""
        return self._limit - (len(self.sequence) - self._prompt_tokens)

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end it."""
        return self._stop_ids

    def fork(self) -> "TextAnswer":
        """Another answer that has come as far as this one. Both count the time of the same request."""
        twin = copy(self)
        twin.sequence = self.sequence.copy()
        twin._detokenizer = self._detokenizer.fork()
        twin._stops = copy(self._stops)
        twin.logprobs = self.logprobs and self.logprobs.fork()
        return twin

    def add(self, token: int) -> bool:
        """Append a token. False when the answer ends with it."""
        self.sequence.append(token)
        self._watch.note()
        if token in self._stop_ids:
            self.finish("stop")
        else:
            count, text = len(self.sequence) - self._prompt_tokens, self._detokenizer.push(token)
            self.text += text if count < self._least else self._stops.push(text)
            if self._stops.matched is not None:
                self.finish_reason = "stop"
            elif count >= self._limit:
                self.finish("length")
        return self.finish_reason is None

    def finish(self, reason: FinishReason) -> None:
        """End the answer, if it has not ended, and let out the text that was held back."""
        if self.finish_reason is None:
            self.text += self._stops.push(self._detokenizer.flush())
            self.text += self._stops.flush()
            self.finish_reason = reason if self._stops.matched is None else "stop"

    def fresh_text(self) -> str:
        """Text that has become sure since the last call. More may come meanwhile, from another thread."""
        text = self.text
        start, self._shown = self._shown, len(text)
        return text[start:]

    @property
    def has_fresh_text(self) -> bool:
        """Whether there is any."""
        return len(self.text) > self._shown

    @property
    def completion(self) -> Completion:
        """The answer so far."""
        tokens = tuple(self.sequence[self._prompt_tokens :])
        watch = self._watch
        usage = Usage(
            self._prompt_tokens,
            len(tokens),
            watch.first_token_s,
            watch.total_s,
            watch.run_s,
            forgotten_tokens=self.forgotten,
            draft_tokens=self.draft_tokens,
            accepted_tokens=self.accepted_tokens,
        )
        return Completion(self.text, tokens, self.finish_reason, usage, *self._noted_logprobs())

    def _noted_logprobs(
        self,
    ) -> tuple[tuple[TokenLogprobs, ...] | None, tuple[TokenLogprobs | None, ...] | None]:
        answer, prompt, start = self.logprobs, self.prompt_logprobs, self._prompt_tokens
        return (
            None if answer is None else answer.read(start, len(self.sequence)),
            None if prompt is None else (None, *prompt.read(1, start)),
        )
