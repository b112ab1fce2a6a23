"""`sardonyx cache pack`, and what `run` and `chat` do with its files."""

from pathlib import Path

import pytest

from command_line import Call

SYSTEM = "You answer in the words of the one who asks, and in no others."

pytestmark = pytest.mark.usefixtures("parrot")


@pytest.fixture
def packed(call: Call, tmp_path: Path) -> Path:
    (tmp_path / "system.txt").write_text(SYSTEM)
    result = call("cache", "pack", str(tmp_path / "system.txt"), "-o", str(tmp_path / "system.kv"))
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith(f"{tmp_path / 'system.kv'}: 64 tokens, ")
    return tmp_path / "system.kv"


def test_run_follows_the_instructions_of_a_file(call: Call, packed: Path) -> None:
    result = call("run", "model", "Hello", "--cache", str(packed))
    assert (result.code, result.out) == (0, "Hello\n")
    assert result.err.startswith(f"{len(SYSTEM) + 8} prompt tokens (64 cached), ")


def test_chat_follows_the_instructions_of_a_file(call: Call, packed: Path) -> None:
    result = call("chat", "model", "--cache", str(packed), stdin="/system\nHello\n/stats\n")
    assert result.code == 0
    assert SYSTEM in result.err
    assert "(64 cached)" in result.err


def test_a_text_is_gone_on_with(call: Call, tmp_path: Path) -> None:
    text = "<user>" + "x" * 50
    file = tmp_path / "text.kv"
    assert call("cache", "pack", "-", "--raw", "-o", str(file), stdin=text).code == 0
    result = call("run", "model", "yz", "--cache", str(file), "--max-tokens", "3")
    assert (result.code, result.out) == (0, "...\n")
    assert result.err.startswith("53 prompt tokens (32 cached), ")
    result = call("chat", "model", "--cache", str(file))
    assert (result.code, result.err) == (
        2,
        f"error: {file}: holds a text, not instructions; it goes with: sardonyx run\n",
    )


def test_a_file_is_replaced_only_by_force(call: Call, packed: Path) -> None:
    source, place = str(packed.with_suffix(".txt")), str(packed)
    before = packed.read_bytes()
    result = call("cache", "pack", source, "-o", place)
    assert (result.code, packed.read_bytes()) == (2, before)
    assert "--force" in result.err
    packed.write_bytes(b"")
    assert call("cache", "pack", source, "-o", place, "--force").code == 0
    assert packed.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["run", "model", "Hi", "--cache", "KV", "--system", "x"], "exclude each other"),
        (["chat", "model", "--cache", "KV", "--system", "x"], "choose one of them"),
        (["run", "model", "Hi", "--cache", "KV", "--raw"], "leave out --raw"),
        (["run", "model", "Hi", "--cache", "none.kv"], "no such file"),
        (["run", "model", "Hi", "--cache", "TXT"], "not a saved prefix"),
        (["cache", "pack", "none.txt", "-o", "new.kv"], "none.txt: cannot be read"),
        (["cache", "pack", "KV", "-o", "new.kv"], "not text in UTF-8"),
        (["cache", "pack", "-", "-o", "new.kv"], "there is nothing on stdin"),
        (["cache", "pack", "TXT", "-o", "nowhere/new.kv"], "cannot be written"),
    ],
)
def test_what_is_refused_is_one_line(
    call: Call, packed: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], fault: str
) -> None:
    monkeypatch.chdir(packed.parent)
    files = {"KV": packed.name, "TXT": "system.txt"}
    result = call(*(files.get(word, word) for word in arguments))
    assert (result.code, result.out) == (2, "")
    assert fault in result.err
    assert result.err.count("\n") == 1
    assert not Path("new.kv").exists()
