"""Options that a table declares: their flags, their groups in the help, and how what is typed is read.

The usual ones are in the help; `--help-all` shows them all. It knows no option.
"""

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer._click import Context, HelpFormatter
from typer.core import TyperCommand

from sardonyx.runtime.errors import RequestError

Given = Mapping[str, Any]
"""The options that were given, by their fields."""


def _words(texts: list[str]) -> tuple[Any, ...]:
    """Texts; what is written as a list is token ids."""
    return tuple(_json(text) if text.startswith("[") else text for text in texts)


def _amounts(texts: list[str]) -> dict[Any, Any]:
    pairs = (text.partition("=")[::2] for text in texts)
    return {_json(token): _json(amount) for token, amount in pairs}


def _json(text: str) -> Any:
    """A number, a list, true or false; or else the text as it is, for others to judge."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _same(value: Any) -> Any:
    return value


WORDS = tuple[str | tuple[int, ...], ...]
KINDS: Mapping[Any, tuple[Any, str, Callable[[Any], Any]]] = {
    int: (int, "N", _same),
    float: (float, "X", _same),
    str: (str, "TEXT", _same),
    bool: (bool, "", _same),
    bool | str: (str, "WHEN", _json),
    tuple[int, ...]: (list[int], "ID", tuple),
    tuple[float, ...]: (list[float], "X", tuple),
    tuple[str, ...]: (list[str], "TEXT", tuple),
    WORDS: (list[str], "TEXT", _words),
    dict[int, float]: (list[str], "ID=X", _amounts),
    tuple[int, float]: (str, "N,X", lambda text: _json(f"[{text}]")),
}
"""By the type of a field: as what it is typed, its placeholder, and what is made of it."""


@dataclass(frozen=True)
class Option:
    """One option. `kind` is one of KINDS: what holds several values is repeated, its name in the singular."""

    field: str
    kind: Any
    help: str
    group: str
    shown: bool = True
    metavar: str = ""
    name: str = ""
    """Where it is not the field's."""

    @property
    def flag(self) -> str:
        plural = self._many and KINDS[self.kind][2] is not _amounts
        return "--" + (self.name or self.field.removesuffix("s" * plural)).replace("_", "-")

    @property
    def _many(self) -> bool:
        return KINDS[self.kind][0] in (list[int], list[float], list[str])

    def declared(self) -> inspect.Parameter:
        """As typer wants it."""
        typed, metavar, _ = KINDS[self.kind]
        text = self.help[0].upper() + self.help[1:] + ("; may be repeated." if self._many else ".")
        option = typer.Option(
            self.flag,
            metavar=self.metavar or metavar or None,
            help=text,
            rich_help_panel=self.group,
            hidden=not self.shown,
        )
        keyword = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(
            self.field, keyword, default=None, annotation=Annotated[typed | None, option]
        )

    def read(self, typed: Any) -> Any:
        """The value of the field."""
        return KINDS[self.kind][2](typed)


def taking(name: str, options: Iterable[Option]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these options in place of its parameter `name`, which gets what was given of them."""

    def taken(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_options(**values: Any) -> None:
            typed = {option: values.pop(option.field) for option in options}
            given = {option.field: option.read(value) for option, value in typed.items() if value is not None}
            command(**values, **{name: given})

        signature = inspect.signature(command)
        keyword = inspect.Parameter.KEYWORD_ONLY
        own = [one.replace(kind=keyword) for one in signature.parameters.values() if one.name != name]
        declared = [option.declared() for option in options]
        with_options.__signature__ = signature.replace(parameters=own + declared)  # type: ignore[attr-defined]
        return with_options

    return taken


class GroupedCommand(TyperCommand):
    """A command whose help shows its options in groups."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                name, text = record
                own = "Options"
                if param.param_type_name == "argument":
                    own, name = "Arguments", name.partition(" <")[0]  # all are texts
                groups.setdefault(getattr(param, "rich_help_panel", None) or own, []).append((name, text))
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _show_all(context: typer.Context, asked: bool) -> None:
    if asked:
        for param in context.command.params:
            param.hidden = False  # type: ignore[attr-defined]
        print(context.get_help())
        raise typer.Exit


Adapter = Annotated[
    str | None, typer.Option("--adapter", metavar="NAME", help="One of those it was exported with.")
]
HelpAll = Annotated[
    bool, typer.Option("--help-all", callback=_show_all, is_eager=True, help="Show all options, and leave.")
]


def refuse_both(given: Mapping[str, bool]) -> None:
    """Raises RequestError if more than one of these options is given."""
    both = [flag for flag, is_given in given.items() if is_given]
    if len(both) > 1:
        raise RequestError(f"{' and '.join(both)} exclude each other; choose one of them")
