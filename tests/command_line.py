"""Calling `sardonyx` from tests: in this process, or in one of its own where signals and terminals matter."""

import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

PROGRAM = [sys.executable, "-c", "from sardonyx.runtime.cli import main; main()"]
PARROT = [
    sys.executable,
    "-c",
    "from scripted_llm import scripted_llm; from sardonyx.runtime.cli import first_use, main\n"
    "first_use.load = lambda model, threads, exact=False, memory=None, place=None: scripted_llm()\nmain()",
]
"""`sardonyx` with the scripted model in place of any other."""


@dataclass(frozen=True)
class Result:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


class Call(Protocol):
    def __call__(self, *arguments: str, stdin: str | bytes = "") -> Result: ...


def environment(**changes: str) -> dict[str, str]:
    """This process's own, with the tests' modules within reach."""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": paths} | changes


def spawn(command: list[str], *arguments: str, **changes: str) -> "subprocess.Popen[bytes]":
    """Start it with an empty stdin and with pipes to read from."""
    return subprocess.Popen(
        [*command, *arguments],
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


class Terminal:
    """A command on a (pseudo) terminal of its own: type keys, wait for what the screen shows. POSIX only."""

    PATIENCE_S = 20

    def __init__(self, command: list[str], *arguments: str, **changes: str) -> None:
        import fcntl
        import termios

        self._side, other = os.openpty()
        self._seen = ""
        self.process = subprocess.Popen(
            [*command, *arguments],
            env=environment(TERM="xterm", INPUTRC=os.devnull, **changes),
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(other)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._side)

    def type(self, keys: str) -> None:
        os.write(self._side, keys.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C once the command waits for a key, where the system tells: Python's readline does not
        see a signal that comes while it takes one in.
        """
        state = Path(f"/proc/{self.process.pid}/stat")
        while state.exists() and state.read_text().rpartition(") ")[2][0] != "S":
            time.sleep(0.001)
        self.type("\x03")

    def wait_for(self, text: str) -> str:
        """Read until `text` is on the screen; returns what came before it since the last call."""
        deadline = time.monotonic() + self.PATIENCE_S
        while text not in self._seen and time.monotonic() < deadline:
            if select.select([self._side], [], [], 0.1)[0]:
                try:
                    self._seen += os.read(self._side, 4096).decode(errors="replace")
                except OSError:  # the command has ended
                    break
        before, found, self._seen = self._seen.partition(text)
        assert found, f"{text!r} did not come, but {before!r}"
        return before
