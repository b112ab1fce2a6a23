"""What a caller may ask of a generation: sampling parameters under Hugging Face's names, and when to stop.

Defaults are neutral: greedy, no penalty, until the model ends its answer or the context is full.
"""

import msgspec

from sardonyx.runtime.errors import RequestError


class SamplingParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of one request.

    `temperature` 0 means greedy; `top_k` 0, `top_p` 1, `min_p` 0 and `repetition_penalty` 1 are off. `seed`
    fixes the noise of sampling (None draws a fresh seed). Generation ends at one of the model's own end
    tokens (unless `ignore_eos`), at one of `stop_token_ids`, before one of the strings of `stop`, or after
    `max_tokens` tokens. Raises RequestError when a value is out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        bounds = (
            ("temperature", self.temperature >= 0, "at least 0 (0 is greedy)"),
            ("top_k", self.top_k >= 0, "at least 0 (0 is off)"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (1 is off)"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 (off) to 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0 (1 is off)"),
            ("max_tokens", self.max_tokens is None or self.max_tokens >= 1, "at least 1"),
            ("stop", all(self.stop), "without empty strings"),
        )
        for name, held, range_text in bounds:
            if not held:
                raise RequestError(f"{name}={getattr(self, name)!r} is out of range: it must be {range_text}")
