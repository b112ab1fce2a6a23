"""What holds of every command: help at once, exit codes, one line for what is refused, odd surroundings."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import PARROT, PROGRAM, Call, environment, spawn
from sardonyx.runtime.cli.help_text import WIDTH, help_texts


def test_help_answers_at_once_and_loads_nothing_heavy() -> None:
    heavy = {"numpy", "onnxruntime", "tokenizers", "jinja2", "huggingface_hub", "rich.console", "pydantic"}
    program = (
        "import sys\nfrom sardonyx.runtime.cli import main\n"
        f"try: main(['--help'])\nfinally: print(*{heavy} & sys.modules.keys(), file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        after = os.times()
        seconds.append(
            sum(after[2:4]) - sum(before[2:4])
        )  # of a processor, so that a busy machine may run it
    assert "Commands:" in done.stdout
    assert done.stderr.split() == []
    assert min(seconds) < 0.3


def test_help_of_every_command_fits_the_readme() -> None:
    texts = help_texts()
    commands = {"bench", "chat", "compare", "doctor", "eval", "export", "inspect"}
    commands |= {"list", "pull", "rm", "run", "score", "tune", "verify", "cache", "cache pack"}
    assert texts.keys() == {"sardonyx", *(f"sardonyx {command}" for command in commands)}
    for line, text in texts.items():
        assert text.startswith(f"Usage: {line} ")
        assert len(text.splitlines()) <= (60 if line.endswith((" run", " chat")) else 40)
        assert max(map(len, text.splitlines())) <= WIDTH


def test_no_command_is_a_usage_error_that_shows_the_help(call: Call) -> None:
    result = call()
    assert (result.code, result.out) == (2, "")
    assert "Commands:" in result.err


def test_version(call: Call) -> None:
    assert call("--version").out.startswith("sardonyx 0.")


@pytest.mark.parametrize(
    "arguments",
    [["fly"], ["run", "--fly"], ["run", "--top-k", "many"], ["bench", "--repeats", "0"], ["pull"]],
)
def test_a_usage_error_exits_with_2(call: Call, arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert "Usage: sardonyx" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["pull", "smolm2"],
        ["export", "nowhere.gguf"],
        ["export", "."],
        ["inspect", "nowhere"],
        ["inspect", "."],
        ["rm", "nothing", "--yes"],
        ["run", "nowhere", "Hello"],
        ["run", ""],
        ["run", ".", "Hello"],
        ["chat", "nowhere"],
        ["bench", "nowhere:int4"],
        ["bench", ":"],
    ],
)
def test_what_is_refused_is_one_line_and_exits_with_2(
    call: Call, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1


def test_a_closed_pipe_ends_quietly() -> None:
    process = spawn(PARROT, "run", "forever", "--max-tokens", "200")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(1) == b"o"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
    process.stderr.close()


def test_an_interrupt_ends_with_130_and_no_traceback() -> None:
    process = spawn(PARROT, "run", "forever")
    assert process.stdout is not None
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in err


def test_an_interrupt_while_modules_load_is_quiet_too() -> None:
    program = (
        "import sys\nclass Interrupted:\n"
        "    def find_spec(name, *_):\n        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted)\nfrom sardonyx.runtime.__main__ import main\nmain()"
    )
    process = spawn([sys.executable, "-c", program], "--version")
    assert process.communicate() == (b"", b"")
    assert process.returncode == 130


def test_it_is_a_module_to_run() -> None:
    out, _ = spawn([sys.executable, "-m", "sardonyx.runtime"], "--version").communicate()
    assert out.startswith(b"sardonyx 0.")


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"COLUMNS": "20", "TERM": "dumb"},
        {"COLUMNS": "x", "NO_COLOR": "1", "TERM": ""},
    ],
)
def test_poor_terminals(environment: dict[str, str]) -> None:
    process = spawn(PARROT, "run", "é 🦜", **environment)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.decode() in ("é 🦜\n", "? ?\n")
    for arguments in (["--help"], ["run", "--help"], ["list"], ["rm", "🦜"]):
        process = spawn(PROGRAM, *arguments, **environment)
        _, err = process.communicate()
        assert b"Traceback" not in err


def test_a_prompt_of_broken_bytes_is_refused() -> None:
    process = spawn(PARROT, "run", "caf\udce9")
    out, err = process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert err.startswith(b"error: ")
    assert err.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "redirections", "code", "message"),
    [
        (["run", "m", "Hello"], ">&-", 2, "error: standard output is closed"),
        (["run", "m", "Hello"], "2>&-", 0, ""),
        (["run", "-"], "<&-", 2, "error: the prompt is empty"),
        (["chat", "m"], "<&-", 0, "m (none). /help"),
        (["run", "m", "Hello"], ">/dev/full", 2, "error: No space left on device: what was written is not"),
        (["run", "m", "Hello", "--json"], ">/dev/full", 2, "error: No space left on device"),
        (["--help"], ">/dev/full", 2, "error: No space left on device"),
    ],
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_streams_that_are_not_there(arguments: list[str], redirections: str, code: int, message: str) -> None:
    command = " ".join(map(shlex.quote, [*PARROT, *arguments]))
    done = subprocess.run(
        ["sh", "-c", f"{command} {redirections}"], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
