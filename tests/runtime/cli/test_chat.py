"""`sardonyx chat`: a conversation from a pipe and on a real (pseudo) terminal, and every /command."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import PARROT, Call, Terminal
from sardonyx.runtime.cli import first_use
from scripted_llm import scripted_llm

pytestmark = pytest.mark.usefixtures("parrot")


def test_lines_from_a_pipe_are_answered_one_by_one(call: Call) -> None:
    result = call("chat", stdin="Hello\n\nfine weather")
    assert (result.code, result.out) == (0, "Hello\nfine weather\n")
    assert result.err.startswith("smollm2-135m (none). /help shows")


def test_a_message_of_several_lines(call: Call) -> None:
    assert call("chat", stdin="one\\\ntwo\n").out == "one\ntwo\n"
    assert call("chat", stdin='"""\nthree\n\nfour\n"""\n').out == "three\n\nfour\n"


def test_a_message_that_the_pipe_cuts_off_is_not_answered(call: Call) -> None:
    assert call("chat", stdin='"""\nthree\n').out == ""


@pytest.mark.parametrize("leave", ["/exit", "  /exit  "])
def test_exit_leaves(call: Call, leave: str) -> None:
    assert call("chat", stdin=f"{leave}\nHello\n").out == ""


def test_what_was_said_is_remembered_until_reset(call: Call) -> None:
    result = call("chat", stdin="Hello\nAgain\n/stats\n/reset\nHello\n/stats\n")
    contexts = re.findall(r"context: (\d+) of 256", result.err)
    assert contexts == ["25", "13"]
    assert "3 answers, 18 tokens generated in all" in result.err


def test_stats_before_any_answer(call: Call) -> None:
    assert "nothing has been answered yet" in call("chat", stdin="/stats\n").err


def test_help_names_every_command(call: Call) -> None:
    listed = re.findall(r"^(/\w+)  ", call("chat", stdin="/help\n").err, re.MULTILINE)
    assert listed == ["/help", "/reset", "/system", "/save", "/stats", "/exit"]


def test_an_unknown_command_is_said_and_not_answered(call: Call) -> None:
    result = call("chat", stdin="/rest\n/qqqq\n/usr/bin is a path\n")
    assert "/rest: no such command; did you mean /reset?" in result.err
    assert "/qqqq: no such command; /help shows them all" in result.err
    assert result.out == "/usr/bin is a path\n"


def test_instructions(call: Call, tmp_path: Path) -> None:
    saved = tmp_path / "chat.json"
    lines = ["/system", "/system Be very brief", "Hello", "/system", f"/save {saved}"]
    result = call("chat", "--system", "Be brief", stdin="\n".join(lines))
    assert "\nBe brief\n" in result.err
    assert "\nBe very brief\n" in result.err
    assert json.loads(saved.read_text("utf-8")) == [
        {"role": "system", "content": "Be very brief"},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello"},
    ]


def test_saving_overwrites_nothing(call: Call, tmp_path: Path) -> None:
    saved = tmp_path / "my chat.txt"
    result = call("chat", stdin=f"Hi 🦜\n/save {saved}\n/save {saved}\n/save\n/save {tmp_path}/no/where\n")
    assert saved.read_text("utf-8") == "user: Hi 🦜\n\nassistant: Hi 🦜\n"
    assert f"(saved 2 messages to {saved})" in result.err
    assert result.err.count("error: ") == 3
    assert "File exists" in result.err


def test_a_conversation_that_outgrows_the_context(call: Call) -> None:
    result = call("chat", stdin=f"{'x' * 124}\nHello\n/reset\nHello\n")
    assert result.out == f"{'x' * 124}\nHello\n"
    assert "error: the prompt has 257 tokens" in result.err
    assert "(/reset starts a new conversation)" in result.err
    full = call("chat", stdin=f"{'x' * 150}\n")
    assert "cut off: the context of 256 tokens is full; /reset starts a new conversation" in full.err


def test_a_message_too_long_is_refused_and_forgotten(call: Call) -> None:
    result = call("chat", stdin=f"{'x' * 300}\nHello\n/stats\n")
    assert result.out == "Hello\n"
    assert "error: " in result.err
    assert "context: 13 of 256" in result.err


def test_an_answer_that_is_cut_off_says_why(call: Call) -> None:
    assert "(cut off after --max-tokens 3)" in call("chat", "--max-tokens", "3", stdin="Hello\n").err


def test_without_a_template_there_is_no_chat(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_use, "load", lambda *_: scripted_llm(template=None))
    result = call("chat", stdin="Hello\n")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: parrot has no chat template")


def test_a_line_that_is_not_text_ends_the_chat_and_is_named(call: Call) -> None:
    result = call("chat", stdin=b"Hello\nca\xe9\nHello\n")
    assert (result.code, result.out) == (2, "Hello\n")
    end = "error: line 2 on stdin is not UTF-8 text (byte 2); no more was read\n"
    assert result.err.endswith(end)


def test_lines_may_end_as_windows_ends_them(call: Call) -> None:
    assert call("chat", stdin="Hello\r\n").out == call("chat", stdin="Hello\n").out


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with Terminal(PARROT, "chat", SARDONYX_HOME=str(tmp_path)) as terminal:
        yield terminal


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals are POSIX")
def test_ctrl_c_stops_the_answer_and_ctrl_d_leaves(terminal: Terminal) -> None:
    terminal.wait_for(">>> ")
    terminal.type("forever\r")
    terminal.wait_for("on on ")
    terminal.type("\x03")
    terminal.wait_for("(stopped)")
    terminal.wait_for(">>> ")
    terminal.type("half a line")
    terminal.wait_for("half a line")
    terminal.interrupt()
    terminal.wait_for("(Ctrl-D or /exit leaves)")
    terminal.wait_for(">>> ")
    terminal.type("Hello\r")
    terminal.wait_for("Hello\r\n")
    terminal.wait_for("Hello\r\n")
    terminal.wait_for(">>> ")
    terminal.type("\x04")
    assert terminal.process.wait(20) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals are POSIX")
def test_history_and_completion(terminal: Terminal, tmp_path: Path) -> None:
    pytest.importorskip("readline")
    terminal.wait_for(">>> ")
    terminal.type("first\r")
    terminal.wait_for("first\r\n")
    terminal.wait_for("first\r\n")
    terminal.type("\x1b[A!\r")  # the arrow up
    terminal.wait_for("first!\r\n")
    terminal.wait_for("first!\r\n")
    terminal.type("/sta\t\r")
    terminal.wait_for("2 answers")
    terminal.type("/exit\r")
    assert terminal.process.wait(20) == 0
    assert "first!" in (tmp_path / "chat_history").read_text()
