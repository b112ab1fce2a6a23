"""`sardonyx rm`: remove from the library."""

import sys
from typing import Annotated

import typer


def command(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Names as `sardonyx list` shows them.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove models from the library."""
    from sardonyx.runtime.cli.terminal import say, size_text
    from sardonyx.runtime.errors import RequestError
    from sardonyx.runtime.library import Library

    library = Library.of_user()
    entries = [library.find(name) for name in names]
    if not yes and not sys.stdin.isatty():
        raise RequestError("rm asks before it removes, and there is no terminal to ask on; say --yes")
    for entry in entries:
        if yes or typer.confirm(f"Remove {entry.kind} {entry.name} ({size_text(entry.bytes)})?", err=True):
            library.remove(entry)
            say(f"removed {entry.name} ({size_text(entry.bytes)})")
