"""`--cache-memory`: sizes as people write them, and what a limit does to answers and is said of it."""

from typing import Any

import pytest

from command_line import Call
from sardonyx.runtime.cli import first_use
from sardonyx.runtime.cli.cache_memory import bytes_of
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.model import Memory
from scripted_llm import scripted_llm

LIMIT = "400B"
"""A hundred positions of the parrot's, of which 16 are for guesses and padding."""


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (None, None),
        ("123", 123),
        ("123B", 123),
        ("5kB", 5000),
        ("512MB", 512_000_000),
        ("1.5 gb", 1_500_000_000),
        ("64MiB", 64 << 20),
        ("2GiB", 2 << 30),
    ],
)
def test_sizes(size: str | None, expected: int | None) -> None:
    assert bytes_of(size) == expected


@pytest.mark.parametrize("size", ["", "much", "-5MB", "5 M B", "MB", "1e9", "5TB", "٣MB", "nan"])
def test_what_is_no_size(size: str) -> None:
    with pytest.raises(RequestError, match=r"--cache-memory .*: a size is needed"):
        bytes_of(size)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["run", "model", "Hi", "--cache-memory", "much"], "--cache-memory much: a size is needed"),
        (["chat", "model", "--cache-memory", "much"], "--cache-memory much: a size is needed"),
        (["bench", "model", "--cache-memory", "much"], "--cache-memory much: a size is needed"),
        (["run", "model", "Hi", "--cache-memory", "50B"], "a cache of 50 bytes is too little for any text"),
        (["run", "model", "x" * 90, "--cache-memory", LIMIT], "a cache of 400 bytes holds 84 positions"),
        (["run", "model", "x" * 30, "--num-beams", "4", "--cache-memory", LIMIT], "4 rows of 49 positions"),
    ],
)
def test_what_does_not_fit_is_refused(call: Call, parrot: object, words: list[str], fault: str) -> None:
    result = call(*words)
    assert (result.code, result.out) == (2, "")
    assert fault in result.err
    assert result.err.count("\n") == 1


def test_an_answer_ends_where_the_room_does_and_says_so(call: Call, parrot: object) -> None:
    prompt = "x" * 20
    result = call("run", "model", prompt, "--ignore-eos", "--cache-memory", LIMIT)
    known = len(prompt) + len(["<user>", "<assistant>"])
    assert result.err.startswith(f"{known} prompt tokens, {84 - known} generated, ")
    assert result.err.endswith("; cut off: the context is full\n")


def test_a_conversation_speaks_of_the_room_that_there_is(call: Call, parrot: object) -> None:
    result = call("chat", "model", "--cache-memory", LIMIT, "--ignore-eos", stdin="Hello\n/stats\n")
    assert "(cut off: the context of 84 tokens is full; /reset starts a new conversation)" in result.err
    assert "context: 84 of 84 tokens, 100%" in result.err


def test_a_conversation_that_forgets_counts_what_is_left(call: Call, parrot: object) -> None:
    """Of 84 positions; an answer that outgrows them was not cut off by them."""
    words = ("--cache-memory", LIMIT, "--context-shift", "--max-tokens", "60", "--ignore-eos")
    result = call("chat", "model", *words, stdin="x" * 50 + "\n/stats\n")
    assert "(cut off after --max-tokens 60)" in result.err
    (line,) = (line for line in result.err.splitlines() if line.startswith("context: "))
    used = int(line.split()[1])
    assert 40 < used <= 84
    assert line == f"context: {used} of 84 tokens, {used / 84:.0%}"


def test_every_model_of_a_request_is_limited(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def load(model: str, *given: Any) -> LLM:
        memory = next(one for one in given if isinstance(one, Memory))
        limits.append((model, memory.cache))
        return scripted_llm(memory=memory)

    monkeypatch.setattr(first_use, "load", load)
    result = call("run", "model", "Hi", "--ensemble", "other", "--cache-memory", "1MB")
    assert (result.code, limits) == (0, [("model", 1_000_000), ("other", 1_000_000)])
