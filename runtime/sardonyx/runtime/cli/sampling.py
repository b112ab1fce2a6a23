"""Every field of `SamplingParams` as an option on the command line.

What is not given stays as the model's own defaults have it; only the length of an answer has a default here,
because small models repeat themselves until the context is full.
"""

from typing import get_args

import msgspec

from sardonyx.runtime.cli.options import Given, Option
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.values import bare

ANSWER_TOKENS = 512

GROUPS = {
    "profile": "Sampling",
    "repetition_penalty": "Penalties",
    "logit_bias": "Tokens",
    "max_tokens": "Length",
    "logprobs": "Log probabilities",
}
"""A group begins with this field, and goes on to the next."""

USUAL = {
    *("profile", "seed", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_tokens"),
    *("stop", "stop_token_ids", "ignore_eos", "logprobs"),
}
"""Fields that the help shows; `--help-all` shows the others too."""

SHOWS_LOGPROBS = ("logprobs", "logprobs_mode", "prompt_logprobs")
"""Fields that ask for what a conversation does not show."""

HELP = {
    "profile": "whose order, scope and ties: openai, hf, vllm or llama.cpp",
    "top_p": "only the likeliest tokens that hold X of all",
    "min_p": "only tokens X times as likely as the likeliest",
    "max_tokens": f"end after N tokens; {ANSWER_TOKENS} if not given",
    "stop": "end before this text",
    "stop_token_ids": "end at this token",
    "bad_words": "a text, or [ID, ...], that never comes",
    "suppress_tokens": "a token that never comes",
    "begin_suppress_tokens": "a token that never comes first",
    "allowed_token_ids": "a token that may come; without any, all may",
    "dry_sequence_breakers": "DRY: a text that no repeat goes across",
    "exponential_decay_length_penalty": "after N tokens an end is X times likelier at each",
    "logit_bias": "added to the logit of a token",
}
"""Where one option says it better than one field."""

METAVARS = {"profile": "NAME", "logprobs_mode": "NAME", "forced_bos_token_id": "ID"}


def sampling_options(leave_out: tuple[str, ...] = ()) -> list[Option]:
    """An option for each field."""
    options = []
    group = ""
    for field in msgspec.structs.fields(SamplingParams):
        group = GROUPS.get(field.name, group)
        if field.name not in leave_out:
            *_, says = field.type.__metadata__
            options.append(
                Option(
                    field.name,
                    _kind(field.type),
                    HELP.get(field.name, says.description),
                    group,
                    shown=field.name in USUAL,
                    metavar=METAVARS.get(field.name, ""),
                )
            )
    return options


def _kind(annotation: object) -> object:
    """The type of a field, which may be None when it is not given."""
    plain = bare(annotation)
    parts = [part for part in get_args(plain) if part is not type(None)]
    return parts[0] if type(None) in get_args(plain) else plain


def with_given(defaults: SamplingParams, given: Given) -> SamplingParams:
    """The model's defaults with what was given in their place. Raises RequestError."""
    length = defaults.max_tokens or ANSWER_TOKENS
    return msgspec.structs.replace(defaults, **{"max_tokens": length, **given})
