"""`sardonyx pull`, `list` and `rm`: what they say and what they leave."""

import sys
from pathlib import Path

import pytest

from command_line import PROGRAM, Call, Terminal
from sardonyx.runtime.library import Library


def add(library: Library, *models: str) -> None:
    for model in models:
        folder = library.checkpoint_folder(model)
        folder.mkdir(parents=True)
        (folder / "model.gguf").write_bytes(bytes(1_500_000))


def test_an_empty_library_says_how_to_fill_it(call: Call, library: Library) -> None:
    result = call("list")
    assert (result.code, result.out) == (0, "")
    assert "sardonyx pull smollm2-135m" in result.err
    assert not library.root.exists()


def test_the_list_is_a_table(call: Call, library: Library) -> None:
    add(library, "owner/名前", "b")
    result = call("list")
    assert result.out.splitlines() == [
        "NAME        KIND        SIZE",
        "b           checkpoint  1.5 MB",
        "owner/名前  checkpoint  1.5 MB",
    ]
    assert result.err == f"3.0 MB in {library.root}\n"


def test_leftovers_are_shown_with_their_cure(call: Call, library: Library) -> None:
    (library.artifacts / ".m.partial-x").mkdir(parents=True)
    result = call("list")
    assert ".m.partial-x  unfinished  0 bytes" in result.out
    assert result.err.endswith("sardonyx rm .m.partial-x\n")
    assert call("rm", ".m.partial-x", "--yes").err == "removed .m.partial-x (0 bytes)\n"
    assert call("list").out == ""


def test_removal_asks_and_needs_a_terminal_or_yes(call: Call, library: Library) -> None:
    add(library, "a", "b")
    assert (
        call("rm", "a").err
        == "error: rm asks before it removes, and there is no terminal to ask on; say --yes\n"
    )
    assert call("rm", "a", "b", "-y").err == "removed a (1.5 MB)\nremoved b (1.5 MB)\n"
    assert library.entries() == []


def test_nothing_is_removed_when_one_name_is_unknown(call: Call, library: Library) -> None:
    add(library, "smollm2-135m")
    result = call("rm", "smollm2-135m", "smollm2", "--yes")
    assert result.err == "error: smollm2: not in the library; did you mean smollm2-135m?\n"
    assert len(library.entries()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals are POSIX")
@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("n", 1), ("", 1)])
def test_the_answer_counts(library: Library, answer: str, left: int) -> None:
    add(library, "a")
    with Terminal(PROGRAM, "rm", "a") as terminal:
        terminal.wait_for("Remove checkpoint a (1.5 MB)? [y/N]: ")
        terminal.type(f"{answer}\r")
        assert terminal.process.wait(20) == 0
    assert len(library.entries()) == left


def test_pull_says_what_it_did_and_that_it_was_here(
    call: Call, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sardonyx.runtime import fetch

    def pull(name: str, library: Library, progress: fetch.Progress) -> Path:
        progress(0, 9, "downloading it")
        progress(9, 9, "downloading it")
        add(library, name)
        return library.checkpoint_folder(name) / "model.gguf"

    monkeypatch.setattr(fetch, "pull", pull)
    path = library.checkpoint_folder("o/n:x.gguf") / "model.gguf"
    result = call("pull", "o/n", "--file", "x.gguf")
    assert result.err == f"downloading it\npulled o/n:x.gguf (1.5 MB): {path}\n"
    assert result.out == ""
    assert call("pull", "o/n:x.gguf").err == f"o/n:x.gguf is already here: {path}\n"
