"""`sardonyx score`: the likeliest text on stdout, all figures on stderr or as JSON."""

import json
import math

import pytest

from command_line import Call
from scripted_llm import VOCABULARY

Loaded = list[tuple[str, int | None]]
CANDIDATES = ["--candidate", "a", "--candidate", ".", "--candidate", ". "]


def test_the_likeliest_is_on_stdout_and_the_scores_are_on_stderr(call: Call, parrot: Loaded) -> None:
    result = call("score", "model", "Hello", *CANDIDATES)
    assert (result.code, result.out) == (0, ".\n")
    assert [line.split()[-1] for line in result.err.splitlines()] == ["a", ".", "."]
    assert parrot == [("model", None)]


def test_json(call: Call, parrot: Loaded) -> None:
    found = json.loads(call("score", "model", "Hello", *CANDIDATES, "--json").out)
    assert found["best"] == "."
    every = math.log(math.e + len(VOCABULARY) - 1)
    expected = [-every, 1 - every, 1 - 2 * every]
    assert [one["logprob"] for one in found["candidates"]] == pytest.approx(expected, abs=1e-5)
    assert sum(one["probability"] for one in found["candidates"]) == pytest.approx(1)


def test_normalization(call: Call, parrot: Loaded) -> None:
    found = json.loads(call("score", "model", "Hello", *CANDIDATES, "--json", "--normalize", "tokens").out)
    assert [one["score"] / one["logprob"] for one in found["candidates"]] == pytest.approx([1, 1, 0.5])


def test_what_cannot_be_scored_is_refused(call: Call, parrot: Loaded) -> None:
    assert call("score", "model", "Hello", "--candidate", "").err == "error: '' adds no token to the prompt\n"
    refused = call("score", "model", "Hello", "--candidate", "a", "--normalize", "words")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == "error: normalize='words' is out of range: it must be None, tokens or bytes\n"
    assert call("score", "model", "Hello").code == 2
