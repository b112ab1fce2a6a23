"""What a caller may ask of a generation: sampling parameters under Hugging Face's names, and when to stop.

Defaults are neutral: greedy, no penalty, until the model ends its answer or the context is full. A model may
come with defaults of its own, read here from its generation config.
"""

from collections.abc import Mapping
from inspect import formatannotation
from math import inf
from typing import Any

import msgspec

from sardonyx.runtime.errors import RequestError


class SamplingParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of one request.

    `temperature` 0 means greedy; `top_k` 0, `top_p` 1, `min_p` 0 and `repetition_penalty` 1 are off. `seed`
    fixes the noise of sampling (None draws a fresh seed). Generation ends at one of the model's own end
    tokens (unless `ignore_eos`), at one of `stop_token_ids`, before one of the strings of `stop`, or after
    `max_tokens` tokens. Raises RequestError when a value is of the wrong type or out of its range.
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
        self._check_types()
        bounds = (
            ("temperature", 0 <= self.temperature < inf, "at least 0 (0 is greedy)"),
            ("top_k", self.top_k >= 0, "at least 0 (0 is off)"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (1 is off)"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 (off) to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < inf, "above 0 (1 is off)"),
            ("max_tokens", self.max_tokens is None or self.max_tokens >= 1, "at least 1"),
            ("stop", all(self.stop), "without empty strings"),
        )
        for name, held, range_text in bounds:
            if not held:
                raise RequestError(f"{name}={getattr(self, name)!r} is out of range: it must be {range_text}")

    def _check_types(self) -> None:
        """msgspec leaves this to its decoders. A list may stand for a tuple."""
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            try:
                msgspec.structs.force_setattr(self, field.name, msgspec.convert(value, field.type))
            except msgspec.ValidationError:
                kind = formatannotation(field.type)
                raise RequestError(f"{field.name}={value!r} is not of type {kind}") from None


FOLLOWED = {
    "max_new_tokens": "max_tokens",
    "repetition_penalty": "repetition_penalty",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
}
"""Settings of a generation config, and what they are called here."""

FOR_SAMPLING = {"temperature", "top_k", "top_p", "min_p"}

WITHOUT_EFFECT = {
    *("do_sample", "bos_token_id", "eos_token_id", "pad_token_id"),  # heeded elsewhere
    *("transformers_version", "_from_model_config", "use_cache", "cache_implementation"),
    *("return_dict_in_generate", "output_attentions", "output_hidden_states", "output_scores"),
}

OFF_AT_ONE = {
    *("num_beams", "num_beam_groups", "num_return_sequences", "length_penalty", "typical_p"),
    *("encoder_repetition_penalty", "guidance_scale"),
}
"""Settings that change nothing when they are 1. Others change nothing when they are 0, false or empty."""


def model_defaults(generation: Mapping[str, Any], context: int) -> tuple[SamplingParams, dict[str, Any]]:
    """A model's own defaults, from its generation config, and what in that is not followed.

    As in Hugging Face's `generate`, a model is sampled from only if `do_sample` says so; what is left out is
    off. Not followed is what is unknown here or out of range, and would change something. `context` is the
    most positions that the model holds.
    """
    sampled = generation.get("do_sample") is True
    params = SamplingParams(temperature=1.0 if sampled else 0.0)
    ignored = {}
    for name, value in generation.items():
        if name in WITHOUT_EFFECT or _is_off(name, value, context) or (name in FOR_SAMPLING and not sampled):
            continue
        try:
            params = msgspec.structs.replace(params, **{FOLLOWED[name]: value})
        except (KeyError, RequestError):
            ignored[name] = value
    return params, ignored


def _is_off(name: str, value: Any, context: int) -> bool:
    if name == "max_length":  # of prompt and answer together
        return isinstance(value, int) and value >= context
    if name in FOLLOWED:
        return value is None
    return not value or (name in OFF_AT_ONE and value == 1)
