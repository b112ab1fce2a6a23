"""Tables, answers and progress, on a terminal and off it."""

import sys
from collections.abc import Iterator

import pytest

from command_line import Terminal
from sardonyx.runtime.cli.terminal import progress_bars, table_text, write_answer
from sardonyx.runtime.errors import RequestError

BARS = [
    sys.executable,
    "-c",
    "from sardonyx.runtime.cli.terminal import progress_bars\nimport time\n"
    "with progress_bars() as show:\n"
    "    for done in range(10): show(done, 10, 'downloading [it]'); time.sleep(0.03)\n"
    "print('ready')",
]


def test_columns_line_up_and_nothing_is_cut() -> None:
    rows = [("NAME", "SIZE"), ("名", "x" * 200), ("", "")]
    assert table_text(rows).split("\n") == ["NAME  SIZE", "名    " + "x" * 200, ""]


@pytest.mark.parametrize("pieces", [["a", "b"], ["a", "b\n"]])
def test_an_answer_ends_with_one_line_end(pieces: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_answer(pieces)
    assert capsys.readouterr().out == "ab\n"


def test_an_empty_answer_is_an_empty_line(capsys: pytest.CaptureFixture[str]) -> None:
    write_answer([])
    assert capsys.readouterr().out == "\n"


def test_off_a_terminal_each_work_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as show:
        for done in range(3):
            show(done, 3, "one")
        show(1, 1, "two")
    assert capsys.readouterr() == ("", "one\ntwo\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals are POSIX")
@pytest.mark.parametrize("changes", [{}, {"COLUMNS": "20"}, {"NO_COLOR": "1"}])
def test_on_a_terminal_there_is_a_bar_that_goes_away(changes: dict[str, str]) -> None:
    with Terminal(BARS, **changes) as terminal:
        shown = terminal.wait_for("ready")
        assert terminal.process.wait(20) == 0
    assert "downloading" in shown
    assert "%" in shown or "COLUMNS" in changes
    assert "\x1b[2K" in shown  # erased
    if "NO_COLOR" in changes:
        assert "\x1b[3" not in shown


ESCAPES = "red \x1b[31m, bell \a, back \b\r, delete \x7f, a C1 one \x9b2J,\n\ta line"


def test_a_model_does_not_command_a_terminal() -> None:
    program = f"from sardonyx.runtime.cli.terminal import write_answer, say\nwrite_answer([{ESCAPES!r}])"
    with Terminal([sys.executable, "-c", program + f"\nsay({ESCAPES!r})"]) as terminal:
        for _ in range(2):
            seen = terminal.wait_for("a line")
            assert seen.lstrip("\r\n") == "red ␛[31m, bell ␇, back ␈␍, delete ␡, a C1 one \ufffd2J,\r\n\t"


def test_a_pipe_gets_a_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    write_answer([ESCAPES, "\n"])
    assert capsys.readouterr().out == ESCAPES + "\n"


@pytest.mark.parametrize(("pieces", "shown"), [([], ""), (["a", "b"], "ab\n"), (["a\n"], "a\n")])
def test_an_answer_that_breaks_off_ends_its_line(
    pieces: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that the error behind it has one of its own; where there was none, nothing is shown."""

    def breaking() -> Iterator[str]:
        yield from pieces
        raise RequestError("no room")

    with pytest.raises(RequestError):
        write_answer(breaking())
    assert capsys.readouterr().out == shown
