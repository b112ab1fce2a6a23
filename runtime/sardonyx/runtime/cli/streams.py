"""The standard streams, as the commands need them, whatever the surroundings left of them."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sardonyx.runtime.errors import OutputError

FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}

PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
VISIBLE = PICTURES | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def visible(text: str) -> str:
    """The text with pictures for the characters that would command a terminal: move, colour, answer, ..."""
    return text.translate(VISIBLE)


@contextmanager
def usable_streams() -> Iterator[None]:
    """Around a command. Raises OutputError where there is nowhere to write to."""
    null = None
    if sys.stdin is None or sys.stderr is None:  # closed by whoever started this
        null = open(os.devnull, "r+", encoding="utf-8")  # noqa: SIM115
        sys.stdin, sys.stderr = sys.stdin or null, sys.stderr or null
    if sys.stdout is None:
        raise OutputError("standard output is closed: there is nowhere for the answer to go")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # whatever the locale
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a terminal without emoji shows a question mark, not a traceback
            stream.reconfigure(errors="replace")
    try:
        try:
            yield
        finally:
            with suppress(BrokenPipeError):  # nobody reads on
                sys.stdout.flush()  # or the interpreter would, where nobody can tell of a full disk
    except OSError as error:
        if error.errno not in FULL:
            raise
        with open(os.devnull, "wb") as sink:  # or the rest would be tried again when the interpreter ends
            os.dup2(sink.fileno(), sys.stdout.fileno())
        raise OutputError(f"{error.strerror}: what was written is not whole") from None
