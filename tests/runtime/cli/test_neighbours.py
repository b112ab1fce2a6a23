"""Folders of other programs on the command line: every command takes them."""

import json
from pathlib import Path

import pytest

from command_line import Call
from foreign_graphs import CONTEXT, Graph, reference, write_settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two variants in the layout of transformers.js."""
    folder = write_settings(tmp_path / "tiny")
    (folder / "onnx").mkdir()
    Graph(in_place=True).write(folder / "onnx" / "model_q4.onnx", external=True)
    Graph().write(folder / "onnx" / "model.onnx")
    return folder


def test_run(folder: Path, call: Call) -> None:
    for variant in ("q4", "fp32"):
        result = call("run", f"{folder}:{variant}", "onyx", "--max-tokens", "3", "--json")
        assert result.code == 0, result.err
        assert json.loads(result.out)["usage"]["completion_tokens"] <= 3


def test_an_unclear_variant_is_one_line(folder: Path, call: Call) -> None:
    for command in (["run"], ["score", "--candidate", "a"]):
        result = call(command[0], str(folder), "onyx", *command[1:])
        assert (result.code, result.out) == (2, "")
        assert result.err == (
            f"error: {folder}: which variant? it has fp32, q4; say for example {folder}:fp32\n"
        )


def test_score(folder: Path, call: Call) -> None:
    result = call("score", f"{folder}:q4", "onyx", "--candidate", "a", "--candidate", "b", "--json")
    logits = reference([ord(letter) - 32 for letter in "onyx"], Graph())[-1]
    a, b = (logits[ord(letter) - 32] for letter in "ab")
    assert json.loads(result.out)["best"] == ("a" if a > b else "b")


def test_bench(folder: Path, call: Call) -> None:
    result = call(
        "bench", f"{folder}:fp32", "--prompt-tokens", "8", "--new-tokens", "4", "--repeats", "1", "--json"
    )
    figures = json.loads(result.out)
    assert figures["recipe"] == "transformers.js fp32"
    assert figures["speeds"][0]["new_tokens"] == 4


def test_inspect(folder: Path, call: Call) -> None:
    facts = json.loads(call("inspect", f"{folder}:q4", "--json").out)
    assert facts["layout"] == "transformers.js q4"
    assert facts["cache"] == "in place"
    assert facts["context_length"] == CONTEXT
    assert set(facts["files"]) == {"model_q4.onnx", "model_q4.onnx_data"}
    shown = call("inspect", f"{folder}:fp32").out
    assert "copied to the graph and back" in shown
    assert "4 x [2, 8] float32" in shown


def test_verify_and_eval(folder: Path, call: Call, tmp_path: Path) -> None:
    """Two graphs of the same weights differ by rounding alone."""
    text = tmp_path / "text.txt"
    text.write_text("onyx in layers, sard and white. " * 20)
    other = str(folder / "onnx" / "model.onnx")
    result = call("verify", f"{folder}:q4", "--against", other, "--text", str(text), "--json")
    assert result.code == 0, result.err
    measured = json.loads(result.out)
    assert measured["certificate"]["overall"]["kl_mean"] < 1e-6
    assert {check["what"]: check["met"] for check in measured["checks"]}["files"]
    figures = json.loads(call("eval", f"{folder}:q4", "--text", str(text), "--json").out)
    assert figures["texts"]["text.txt"]["perplexity"] > 1
    stored = call("verify", f"{folder}:q4", "--against", other, "--text", str(text), "--store")
    assert stored.code == 2
    assert "not an artifact of sardonyx" in stored.err
