"""One answer in the making: tokens in, readable text out, and the decision when it ends. Knows no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.stop import StopStrings
from sardonyx.runtime.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Usage:
    """What a request took. Times in seconds from the moment it was made."""

    prompt_tokens: int
    completion_tokens: int
    first_token_s: float
    total_s: float
    run_s: float
    """Of `total_s`, the time inside the inference library."""

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed: tokens after the first over the time after the first. 0 for a single token."""
        seconds = self.total_s - self.first_token_s
        return (self.completion_tokens - 1) / seconds if self.completion_tokens > 1 and seconds > 0 else 0.0


@dataclass(frozen=True)
class Completion:
    """A finished (or, while streaming, unfinished: `finish_reason` None) answer.

    `tokens` are all that were generated, an end token included; `text` leaves special tokens and a matched
    stop string out.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason | None
    usage: Usage


class TextAnswer:
    """Collects tokens until a stop token, a stop string, the token limit or the end of the context."""

    def __init__(
        self, prompt: Sequence[int], params: SamplingParams, tokenizer: Tokenizer, room: int
    ) -> None:
        """`room` is the number of tokens that fit behind the prompt."""
        self.sequence = list(prompt)
        self.finish_reason: FinishReason | None = None
        self.text = ""
        self._prompt_tokens = len(prompt)
        self._limit = min(params.max_tokens or room, room)
        self._stop_ids = frozenset(params.stop_token_ids)
        self._detokenizer = tokenizer.detokenizer()
        self._stops = StopStrings(params.stop)
        self._shown = 0

    @property
    def tokens(self) -> tuple[int, ...]:
        """What was generated."""
        return tuple(self.sequence[self._prompt_tokens :])

    def add(self, token: int) -> bool:
        """Append a token. False when the answer ends with it."""
        self.sequence.append(token)
        if token in self._stop_ids:
            self.finish("stop")
        else:
            self.text += self._stops.push(self._detokenizer.push(token))
            if self._stops.matched is not None:
                self.finish_reason = "stop"
            elif len(self.sequence) - self._prompt_tokens >= self._limit:
                self.finish("length")
        return self.finish_reason is None

    def finish(self, reason: FinishReason) -> None:
        """End the answer and let out the text that was held back."""
        if self.finish_reason is None:
            self.finish_reason = reason
            self.text += self._stops.push(self._detokenizer.flush())
            if self._stops.matched is None:
                self.text += self._stops.flush()

    def fresh_text(self) -> str:
        """Text that has become sure since the last call."""
        start, self._shown = self._shown, len(self.text)
        return self.text[start:]
