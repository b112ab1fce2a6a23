"""Every line of the README's table of algorithms does what it says, in Python and on the command line."""

import importlib
import pkgutil
import re
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest

from command_line import Call
from sardonyx.runtime import LLM, SamplingParams, strategies
from sardonyx.runtime.answer import Completion
from sardonyx.runtime.backends.scripted import ScriptedProgram
from sardonyx.runtime.cli import first_use
from sardonyx.runtime.selection import last_number
from sardonyx.runtime.strategies import Algorithm
from scripted_llm import VOCABULARY, scripted_llm, scripted_llm_manifest
from toys import toy

README = Path(__file__).parents[3] / "README.md"
NAME, PYTHON, COMMAND, PAPER = range(4)
TEXT = "one or two, "
PARAMS = SamplingParams(temperature=0.8, max_tokens=12, seed=1)


def table() -> list[list[str]]:
    """The cells of each row."""
    section = README.read_text("utf-8").partition("\n## Decoding\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def made(seed: int) -> LLM:
    """A small model with hidden states, whose texts are as good as random."""
    parrot = scripted_llm()
    program = ScriptedProgram(toy(len(VOCABULARY), seed), toy(6, seed + 10))
    return LLM(scripted_llm_manifest(hidden_size=6), parrot.tokenizer, None, program)


def algorithms() -> dict[str, Any]:
    modules = [importlib.import_module(f"{strategies.__name__}.{file.name}") for file in MODULES]
    kinds = [kind for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    return {kind.__name__: kind for kind in kinds if issubclass(kind, Algorithm) and kind is not Algorithm}


MODULES = list(pkgutil.iter_modules(strategies.__path__))
ROWS = {row[NAME]: row for row in table()}
each_row = pytest.mark.parametrize("name", ROWS)


def test_every_algorithm_has_a_row() -> None:
    shown = " ".join(row[PYTHON] for row in ROWS.values())
    assert [kind for kind in algorithms() if f"{kind}(" not in shown] == []
    for row in ROWS.values():
        assert len(row) == 4, row
        assert re.fullmatch(r"(\[(\d{4}\.\d{4,5})\]\(https://arxiv\.org/abs/\2\)(, )?)*", row[PAPER]), row


@each_row
def test_python(name: str) -> None:
    expression, *more = code(ROWS[name][PYTHON])
    llm = made(0)
    known = {"llm": llm, "small": made(1), "other": made(1), "last_number": last_number}
    found = eval(expression, {**algorithms(), **known, "text": TEXT, "params": PARAMS})
    if isinstance(found, Algorithm):
        options = {key: value for option in more for key, value in eval(f"dict({option})").items()}
        params = msgspec.structs.replace(PARAMS, **{"temperature": 0.0, **options})
        found = llm.generate(TEXT, params, found)
        assert found.finish_reason in ("stop", "length")
    assert found is not None
    assert not isinstance(found, Completion) or found.text


@each_row
def test_command_line(name: str, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    (line,) = code(ROWS[name][COMMAND])
    loaded: list[str] = []

    def load(model: str, *_: object, **__: object) -> LLM:
        loaded.append(model)
        return made(len(loaded) - 1)

    monkeypatch.setattr(first_use, "load", load)
    command, *words = shlex.split(line)
    words = [TEXT if word == "TEXT" else word for word in words]
    if command == "run":
        words = ["MODEL", *words, "--max-tokens", "12", "--seed", "1", "--raw"]
    result = call(command, *words)
    assert result.code == 0, result.err
    assert result.out.strip()
    assert loaded == ["MODEL", *(word for word in words if word in ("SMALL", "OTHER"))]
