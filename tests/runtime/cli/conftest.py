"""Every test of the command line has a library of its own, and the parrot of `scripted_llm` for a model."""

import io
import os
import sys
from pathlib import Path

import pytest

from command_line import Call, Result
from sardonyx.runtime.cli import first_use, main
from sardonyx.runtime.library import Library
from sardonyx.runtime.llm import MEMORY
from sardonyx.runtime.model import Memory
from scripted_llm import scripted_llm


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # nothing is fetched by accident
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("SARDONYX_HOME", str(tmp_path / "home"))
    return Library.of_user()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `sardonyx` with these arguments, in this process, with this on stdin (not a terminal)."""

    def run(*arguments: str, stdin: str | bytes = "") -> Result:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capsys.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None]]:
    """Every model is the parrot; the fixture records what was asked to be loaded."""
    loaded: list[tuple[str, int | None]] = []

    def load(
        model: str, threads: int | None, exact: bool = False, memory: Memory = MEMORY, place: object = None
    ) -> object:
        loaded.append((model, threads))
        return scripted_llm(memory=memory)

    monkeypatch.setattr(first_use, "load", load)
    return loaded
