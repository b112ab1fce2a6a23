"""Every field of `SamplingParams` on the command line: the usual ones as options, the others by `--param`.

What is not given stays as the model's own defaults have it; only the length of an answer has a default here,
because small models repeat themselves until the context is full.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sardonyx.runtime.errors import RequestError

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

NOT_SHOWN = {"logprobs", "logprobs_mode", "prompt_logprobs"}
"""Fields that ask for what the commands do not show."""

Param = Annotated[
    list[str] | None,
    typer.Option(
        "--param", metavar="NAME=VALUE", help="Another sampling parameter; --param help lists them."
    ),
]


def sampling_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command with a parameter `sampling: Given` all of these options in its place."""

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        named = parsed(values.pop("param") or [])
        options = {field: values.pop(field) for field in OPTIONS}
        given = {field: _value(v) for field, v in options.items() if v is not None}
        if twice := named.keys() & given.keys():
            raise RequestError(f"{min(twice)} is given twice, as an option and by --param")
        command(**values, sampling={**given, **named})

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
    options.append(inspect.Parameter("param", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Param))
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    with_options.__signature__ = signature.replace(parameters=own + options)  # type: ignore[attr-defined]
    return with_options


def _value(given: Any) -> Any:
    return tuple(given) if isinstance(given, list) else given


def parsed(named: list[str]) -> dict[str, Any]:
    """The values of `--param NAME=VALUE`, numbers and lists being JSON. Raises RequestError.

    `--param help` prints what there is, and leaves.
    """
    import msgspec

    from sardonyx.runtime.params import SamplingParams

    fields = {field.name: field for field in msgspec.structs.fields(SamplingParams)}
    others = [name for name in fields if name not in OPTIONS and name not in NOT_SHOWN]
    if "help" in named:
        for name in others:
            print(f"{name:34}{fields[name].type.__metadata__[-1].description}")
        raise typer.Exit
    values = {}
    for word in named:
        name, equals, text = word.partition("=")
        if name not in others or not equals:
            raise RequestError(f"--param {word}: it must be NAME=VALUE; --param help lists the names")
        if name in values:
            raise RequestError(f"--param {name} is given twice")
        values[name] = _read(text, fields[name].type)
    return values


def _read(text: str, kind: Any) -> Any:
    """JSON as a type has it, or else as it is, for SamplingParams to judge. A bare word is a text."""
    import msgspec

    try:
        value = msgspec.json.decode(text)
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        return value
    except msgspec.DecodeError:
        return text


def with_given(defaults: "SamplingParams", given: Given) -> "SamplingParams":
    """The model's defaults with what was given in their place. Raises RequestError."""
    import msgspec

    length = defaults.max_tokens or ANSWER_TOKENS
    return msgspec.structs.replace(defaults, **{"max_tokens": length, **given})
