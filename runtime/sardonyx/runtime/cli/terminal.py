"""How the commands talk to a person: lines, progress bars, sizes, tables, the figures of an answer.

On anything but a terminal it is plain text.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sardonyx.runtime.cli.streams import visible

if TYPE_CHECKING:
    from sardonyx.runtime.answer import Usage


def say(text: str) -> None:
    """One line for the person, beside the output."""
    print(visible(text) if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def write_answer(pieces: Iterable[str]) -> None:
    """Show an answer as it comes, and end it with a line's end, also where it breaks off.

    A terminal is told nothing but text: what a model writes shall not command it. A pipe gets all as it is.
    """
    shown = visible if sys.stdout.isatty() else str
    last, whole = "", False
    try:
        for last in pieces:
            print(shown(last), end="", flush=True)
        whole = True
    finally:
        if (last or whole) and not last.endswith("\n"):
            print(flush=True)


@contextmanager
def progress_bars() -> Iterator[Callable[[int, int, str], None]]:
    """Shows work as it is told (done, in all, what): a bar each, or a line each where no bar can be drawn."""
    if not sys.stderr.isatty():
        yield _announcer()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def show(done: int, total: int, what: str) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


def _announcer() -> Callable[[int, int, str], None]:
    announced: set[str] = set()

    def announce(done: int, total: int, what: str) -> None:
        if what not in announced:
            announced.add(what)
            say(what)

    return announce


def size_text(size: int) -> str:
    """Bytes for people, in powers of ten."""
    from rich.filesize import decimal

    return decimal(size)


def table_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns two spaces apart. Nothing is cut, however narrow the terminal."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def usage_text(usages: "Sequence[Usage]") -> str:
    """The closing line of an answer, or of several to one prompt, which were made side by side."""
    first = usages[0]
    generated = sum(usage.completion_tokens for usage in usages)
    seconds = max(usage.total_s for usage in usages) - first.first_token_s
    speed = (generated - len(usages)) / seconds if seconds > 0 else 0.0
    many = f" in {len(usages)} answers" if len(usages) > 1 else ""
    cached = f" ({first.cached_tokens} cached)" if first.cached_tokens else ""
    forgotten = f"{first.forgotten_tokens} forgotten, " if first.forgotten_tokens else ""
    guessed = f", {first.accepted_tokens} of {first.draft_tokens} guesses right" if first.draft_tokens else ""
    return (
        f"{first.prompt_tokens} prompt tokens{cached}, {generated} generated{many}, {forgotten}"
        f"first token after {first.first_token_s:.2f} s, {speed:.1f} tokens/s{guessed}"
    )
