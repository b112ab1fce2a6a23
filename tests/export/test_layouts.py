"""Artifacts in the layouts of other programs: what they look for is there, and it says the same."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from random_models import UNMEASURED, random_checkpoint
from sardonyx.export import layouts
from sardonyx.export.api import export
from sardonyx.models import architectures
from sardonyx.runtime import LLM
from sardonyx.runtime.cli.inspect import facts_of
from sardonyx.runtime.errors import RequestError, VerificationFailed
from sardonyx.runtime.strategies import Feed

EXAMPLE = architectures()["llama"].EXAMPLE
TEXTS = [[5, 6, 7, 8, 9, 10, 11], [20, 21], [30, 31, 32, 33]]


def written(
    folder: Path, layout: str | None, config: Mapping[str, Any] = EXAMPLE, recipe: str = "fp32"
) -> Path:
    checkpoint = random_checkpoint(config)
    export(checkpoint, folder, recipe=recipe, options=replace(UNMEASURED, layout=layout))
    return folder


def logits(folder: Path) -> list[np.ndarray]:
    """Of rows of different lengths: prompts, a step, a short run behind them."""
    llm = LLM.load(folder, threads=1)
    feeds = [Feed(TEXTS, wanted=2), Feed([[40]] * 3), Feed([[50, 51]] * 3, wanted=2)]
    return [part for answer in llm.logits(*feeds) for part in answer]


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "qwen2"])
def test_it_says_what_the_artifact_says(architecture: str, layout: str, tmp_path: Path) -> None:
    """Rotary and learned positions, windows, soft caps, biases."""
    config = architectures()[architecture].EXAMPLE
    own = logits(written(tmp_path / "own", None, config))
    for found, expected in zip(logits(written(tmp_path / "out", layout, config)), own, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_what_is_quantized_is_the_same_to_the_bit(recipe: str, tmp_path: Path) -> None:
    own = LLM.load(written(tmp_path / "own", None, recipe=recipe), threads=1)
    theirs = LLM.load(written(tmp_path / "out", "genai", recipe=recipe), threads=1)
    feeds = [Feed([TEXTS[0]], wanted=7), *(Feed([[token]]) for token in TEXTS[2])]
    for (found,), (expected,) in zip(theirs.logits(*feeds), own.logits(*feeds), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("layout", "place"), [("genai", "model.onnx"), ("transformers.js", "onnx/model_q4.onnx")]
)
def test_the_graph_is_fed_their_way(layout: str, place: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "out", layout, recipe="int4")
    graph = ir.load(folder / place).graph
    names = [port.name for port in graph.inputs]
    assert names[:3] == ["input_ids", "attention_mask", "past_key_values.0.key"]
    assert graph.outputs[0].name == "logits"
    assert [str(size) for size in graph.outputs[0].shape or ()] == ["batch_size", "sequence_length", "99"]
    attentions = [node for node in graph if node.op_type == "GroupQueryAttention"]
    assert len(attentions) == EXAMPLE["num_hidden_layers"]
    assert all(len(node.inputs) <= 16 for node in attentions)  # onnxruntime 1.31 knows no seventeenth


def test_genai_is_told_what_it_asks_for(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", "genai")
    settings = json.loads((folder / "genai_config.json").read_text())
    model, decoder = settings["model"], settings["model"]["decoder"]
    assert (model["context_length"], model["vocab_size"], model["eos_token_id"]) == (128, 99, [0])
    assert (decoder["num_hidden_layers"], decoder["num_key_value_heads"]) == (2, 2)
    assert decoder["num_attention_heads"] == EXAMPLE["num_attention_heads"]
    assert settings["search"]["past_present_share_buffer"] is True


def test_transformers_js_is_told_where_weights_are(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", "transformers.js", recipe="int8")
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["transformers.js_config"] == {
        "dtype": "int8",
        "use_external_data_format": {"model_int8.onnx": 1},
    }
    assert {path.name for path in (folder / "onnx").iterdir()} == {
        "model_int8.onnx",
        "model_int8.onnx_data",
    }
    assert facts_of(str(folder))[1]["layout"] == "transformers.js int8"


@pytest.mark.parametrize(
    ("layout", "config", "recipe", "said"),
    [
        ("gguf", {}, "fp32", "layout 'gguf' is not known; known: genai, transformers.js"),
        ("transformers.js", {"head_dim": 20}, "fp32", r"takes heads to be 20 wide.*the graph's are 32"),
    ],
)
def test_what_a_layout_cannot_hold(
    layout: str, config: dict[str, Any], recipe: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=said):
        written(tmp_path / "out", layout, {**EXAMPLE, **config}, recipe)
    assert not (tmp_path / "out").exists()


def test_states_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"holds keys and values; .* is a state of another kind"):
        written(tmp_path / "out", "genai", architectures()["lfm2"].EXAMPLE)


def test_hidden_states_have_no_place(tmp_path: Path) -> None:
    options = replace(UNMEASURED, layout="genai", hidden_states=True)
    with pytest.raises(RequestError, match="has no place for hidden states"):
        export(random_checkpoint(EXAMPLE), tmp_path / "out", options=options)


def test_what_says_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "SAME_KL", -1.0)
    with pytest.raises(VerificationFailed, match="in the layout genai: 1 of 1 checks not met"):
        written(tmp_path / "out", "genai")
    assert not (tmp_path / "out").exists()
