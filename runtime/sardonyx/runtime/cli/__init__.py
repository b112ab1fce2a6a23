"""The command `sardonyx`.

A command is a file of this folder with a function `command`: its name is the file's, its options are the
function's parameters, its help is the docstring. A file with a table COMMANDS has several, behind its own
name. Command files import what they need inside the function, so that `--help` answers at once.

Text that was asked for goes to stdout, all else to stderr. Exit codes: 0 done, 1 measured and
found wanting (a table says in what), 2 refused (one line says why), 130 interrupted.
"""

import importlib
import pkgutil
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from sardonyx.runtime.cli.options import GroupedCommand
from sardonyx.runtime.cli.streams import usable_streams
from sardonyx.runtime.errors import SardonyxError, VerificationFailed


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Always leaves by SystemExit."""
    try:
        with usable_streams():
            application()(arguments, prog_name="sardonyx")
    except VerificationFailed as error:
        from sardonyx.runtime.cli.terminal import table_text

        print(f"{table_text(error.table)}\nerror: {error}", file=sys.stderr)
        sys.exit(1)
    except SardonyxError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def application() -> typer.Typer:
    """All commands of this folder as one application, in alphabetical order."""
    application = _group(sardonyx)
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        if hasattr(module, "command"):
            application.command(file.name, cls=GroupedCommand)(module.command)
        elif hasattr(module, "COMMANDS"):
            group = _group(module.about)
            for name, command in module.COMMANDS.items():
                group.command(name, cls=GroupedCommand)(command)
            application.add_typer(group, name=file.name)
    return application


def _group(about: Callable[..., None]) -> typer.Typer:
    """Commands, none yet; their common options and help are a function's."""
    group = typer.Typer(
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    group.callback()(about)
    return group


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"sardonyx {version('sardonyx')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave."),
]


def sardonyx(version: Version = False) -> None:
    """Language models on your own device: export once, decode with onnxruntime.

    Start with: sardonyx run "What is an onyx?"
    """
