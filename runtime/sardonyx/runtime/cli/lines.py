'''Lines that a person types, with history and editing where there is a terminal for them.

A message of several lines ends each but the last with a backslash, or stands between two lines of three
quotes ("""). It knows nothing of what is done with the messages.
'''

import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from sardonyx.runtime.errors import RequestError

FENCE = '"""'
HISTORY_LENGTH = 1000


class Lines:
    """Iterates over the messages that are typed, until Ctrl-D or the end of a pipe.

    Ctrl-C gives up the message being typed. `history` is a file; `commands` are completed with Tab.
    """

    def __init__(self, history: Path, commands: Iterable[str]) -> None:
        self._terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._history = history
        self._commands = sorted(commands)
        self._number = 0

    def __iter__(self) -> Iterator[str]:
        with self._editing() if self._terminal else contextlib.nullcontext():
            while True:
                try:
                    yield self._message()
                except KeyboardInterrupt:
                    print("\n(Ctrl-D or /exit leaves)", file=sys.stderr)
                except EOFError:
                    print(file=sys.stderr)
                    return

    def _message(self) -> str:
        """One message, of one line or several. Raises EOFError when nothing more comes."""
        line = self._line(">>> ")
        if line.strip() == FENCE:
            return "\n".join(iter(lambda: self._line("... "), FENCE))
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1].removesuffix("\\")
            lines.append(self._line("... "))
        return "\n".join(lines)

    def _line(self, prompt: str) -> str:
        if self._terminal:
            return input(prompt)
        line = sys.stdin.buffer.readline()  # decoded one by one: what came before a damaged line is answered
        self._number += 1
        if not line:
            raise EOFError
        try:
            return line.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise RequestError(
                f"line {self._number} on stdin is not UTF-8 text (byte {error.start}); no more was read"
            ) from None

    @contextlib.contextmanager
    def _editing(self) -> Iterator[None]:
        """Line editing and history by readline, on systems that have it."""
        try:
            import readline
        except ImportError:
            yield
            return
        readline.set_history_length(HISTORY_LENGTH)
        readline.set_completer(self._complete)
        readline.set_completer_delims("")
        readline.parse_and_bind("tab: complete")
        with contextlib.suppress(OSError):
            readline.read_history_file(self._history)
        try:
            yield
        finally:
            with contextlib.suppress(
                OSError
            ):  # a history that cannot be kept is no reason to end in an error
                readline.write_history_file(self._history)

    def _complete(self, text: str, place: int) -> str | None:
        matches = [command for command in self._commands if text and command.startswith(text)]
        return matches[place] if place < len(matches) else None
