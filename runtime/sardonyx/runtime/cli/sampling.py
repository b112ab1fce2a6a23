"""Every field of `SamplingParams` as a command line option.

What is not given stays as the model's own defaults have it; only the length of an answer has a default here,
because small models repeat themselves until the context is full.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sardonyx.runtime.params import SamplingParams

ANSWER_TOKENS = 512

Given = Mapping[str, Any]
"""The options that were given, by their field of SamplingParams."""

OPTIONS: Mapping[str, tuple[type, str, str, str]] = {
    "temperature": (float, "--temperature", "X", "0 takes the likeliest token, more is freer."),
    "top_k": (int, "--top-k", "N", "Choose among the N likeliest tokens; 0 is off."),
    "top_p": (float, "--top-p", "X", "Choose among the likeliest that hold X of all."),
    "min_p": (float, "--min-p", "X", "Drop what is below X times the likeliest."),
    "repetition_penalty": (float, "--repetition-penalty", "X", "Above 1 discourages repeating; 1 is off."),
    "seed": (int, "--seed", "N", "Makes a sampled answer repeatable."),
    "max_tokens": (int, "--max-tokens", "N", f"End after N tokens; {ANSWER_TOKENS} if not given."),
    "stop": (list[str], "--stop", "TEXT", "End before this text; may be repeated."),
    "stop_token_ids": (list[int], "--stop-token-id", "ID", "End at this token; may be repeated."),
    "ignore_eos": (bool, "--ignore-eos", "", "Go on after the model's own end."),
}
"""Field: type, option, placeholder, help."""


def sampling_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command with a parameter `sampling: Given` all of these options in its place."""

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        given = {field: values.pop(field) for field in OPTIONS}
        command(**values, sampling={field: _value(v) for field, v in given.items() if v is not None})

    signature = inspect.signature(command)
    own = [parameter for name, parameter in signature.parameters.items() if name != "sampling"]
    options = [
        inspect.Parameter(
            field,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None, typer.Option(option, metavar=metavar or None, help=text)],
        )
        for field, (kind, option, metavar, text) in OPTIONS.items()
    ]
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    with_options.__signature__ = signature.replace(parameters=own + options)  # type: ignore[attr-defined]
    return with_options


def _value(given: Any) -> Any:
    return tuple(given) if isinstance(given, list) else given


def with_given(defaults: "SamplingParams", given: Given) -> "SamplingParams":
    """The model's defaults with what was given in their place. Raises RequestError."""
    import msgspec

    length = defaults.max_tokens or ANSWER_TOKENS
    return msgspec.structs.replace(defaults, **{"max_tokens": length, **given})
