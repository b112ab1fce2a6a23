"""Folders that other programs wrote: run as they are, and one line for what is wrong with one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from foreign_graphs import CONTEXT, VOCAB, Graph, reference, write_merged, write_settings
from sardonyx.runtime import LLM, SamplingParams
from sardonyx.runtime.errors import ArtifactError, SardonyxError, SourceError
from sardonyx.runtime.neighbours import locate, read
from sardonyx.runtime.strategies import Feed

GENAI: dict[str, Any] = {
    "model": {
        "type": "tiny",
        "context_length": CONTEXT,
        "vocab_size": VOCAB,
        "eos_token_id": [0, 1],
        "decoder": {"filename": "decoder.onnx", "head_size": 8, "num_key_value_heads": 2},
    },
    "search": {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 5,
        "num_beams": 1,
        "early_stopping": True,
        "max_length": CONTEXT,
        "past_present_share_buffer": True,
    },
}


def optimum(folder: Path) -> Path:
    Graph().write(write_settings(folder) / "model.onnx")
    return folder


def transformers_js(folder: Path, *names: str) -> Path:
    (write_settings(folder) / "onnx").mkdir()
    for name in names or ("model_q4",):
        Graph(in_place=True).write(folder / "onnx" / f"{name}.onnx", external=True)
    return folder


def genai(folder: Path, settings: dict[str, Any] = GENAI) -> Path:
    Graph(in_place=True).write(write_settings(folder) / "decoder.onnx", external=True)
    (folder / "config.json").unlink()
    (folder / "genai_config.json").write_text(json.dumps(settings))
    return folder


def merged(folder: Path) -> Path:
    """All that optimum once wrote of a model."""
    for name in ("decoder_model", "decoder_with_past_model"):
        Graph().write(write_settings(folder) / f"{name}.onnx")
    write_merged(Graph("counted"), folder / "decoder_model_merged.onnx")
    return folder


def merged_js(folder: Path) -> Path:
    (write_settings(folder) / "onnx").mkdir()
    write_merged(Graph("counted"), folder / "onnx" / "decoder_model_merged.onnx")
    return folder


def test_a_graph_for_one_token_behind_a_past_runs_slowly_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = merged(tmp_path / "tiny")
    (folder / "decoder_model_merged.onnx").unlink()
    llm = LLM.load(folder, threads=1)
    assert "prompts go token by token; get the merged graph" in caplog.text
    ((logits,),) = llm.logits(Feed([[5, 6, 7]], wanted=3))
    np.testing.assert_allclose(logits, reference([5, 6, 7], Graph()), atol=1e-5)


def test_a_graph_without_a_past_is_refused(tmp_path: Path) -> None:
    """optimum's other half: it takes no past, as nothing does that is asked for beginnings alone."""
    folder = write_settings(tmp_path / "tiny")
    model = Graph()._model()
    kept = [port for port in model.graph.input if not port.name.startswith("past")]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    onnx.save(model, folder / "decoder_model.onnx")
    with pytest.raises(ArtifactError, match="keeps no keys and values; export it with past"):
        LLM.load(folder)


@pytest.mark.parametrize(
    ("layout", "recipe"),
    [
        (merged, "optimum decoder_model_merged"),
        (merged_js, "transformers.js fp32"),
        (optimum, "optimum"),
        (transformers_js, "transformers.js q4"),
        (genai, "onnxruntime-genai"),
    ],
)
def test_each_layout_runs(layout: Callable[[Path], Path], recipe: str, tmp_path: Path) -> None:
    llm = LLM.load(layout(tmp_path / "tiny"), threads=1)
    manifest = llm.manifest
    assert (manifest.name, manifest.recipe, manifest.exporter) == ("tiny", recipe, "somebody")
    assert (manifest.vocab_size, manifest.context_length, len(manifest.states)) == (VOCAB, CONTEXT, 4)
    prompt = llm.encode("onyx")
    (token,) = llm.generate(prompt, SamplingParams(max_tokens=1, ignore_eos=True)).tokens
    assert token == reference(prompt, Graph())[-1].argmax()


def test_what_genai_says_is_heeded(tmp_path: Path) -> None:
    llm = LLM.load(genai(tmp_path / "tiny"), threads=1)
    assert llm.manifest.tokens.eos == [0, 1]
    assert (llm.default_params.temperature, llm.default_params.top_k) == (0.7, 5)


def test_nothing_of_the_search_is_ignored_unsaid(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    LLM.load(genai(tmp_path / "one"), threads=1)
    assert not caplog.records
    search = {**GENAI["search"], "num_beams": 4}
    LLM.load(genai(tmp_path / "two", {**GENAI, "search": search}), threads=1)
    assert {record.args[1] for record in caplog.records if record.args} == {"num_beams", "early_stopping"}  # type: ignore[index]


def test_a_variant_is_chosen_by_name(tmp_path: Path) -> None:
    folder = transformers_js(tmp_path / "tiny", "model", "model_fp16", "model_quantized")
    assert locate(f"{folder}:fp32") == folder / "onnx" / "model.onnx"
    assert locate(f"{folder}:q8") == folder / "onnx" / "model_quantized.onnx"
    assert locate(str(folder / "onnx" / "model_fp16.onnx")) == folder / "onnx" / "model_fp16.onnx"
    assert LLM.load(f"{folder}:fp16", threads=1).manifest.recipe == "transformers.js fp16"
    with pytest.raises(
        ArtifactError, match=r"which variant\? it has fp32, q8, fp16; say for example .*:fp32$"
    ):
        LLM.load(folder)
    with pytest.raises(ArtifactError, match=r"has no variant q4; it has fp32, q8, fp16$"):
        LLM.load(f"{folder}:q4")


def test_graphs_of_other_kinds(tmp_path: Path) -> None:
    """Of an encoder and a decoder, or of two branches."""
    folder = transformers_js(tmp_path / "tiny", "decoder_model_merged", "encoder_model")
    said = r"onnx: has decoder_model_merged\.onnx, encoder_model\.onnx, but no model\.onnx or model_DTYPE"
    with pytest.raises(ArtifactError, match=said):
        locate(str(folder))


def test_what_is_no_neighbours_folder(tmp_path: Path) -> None:
    for word in ("", "What is an onyx?", "a:b", "x" * 5000, str(tmp_path), str(tmp_path / "model.onnx")):
        assert locate(word) is None
    write_settings(tmp_path)
    assert locate(str(tmp_path)) is None
    (optimum(tmp_path / "mine") / "sardonyx.json").write_text("{}")
    assert locate(str(tmp_path / "mine")) is None


def test_slow_paths_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = optimum(tmp_path / "tiny") / "model.onnx"
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("DynamicQuantizeLinear", ["x0"], ["a", "b", "c"]))
    onnx.save(model, path)
    LLM.load(tmp_path / "tiny", threads=1)
    assert "one scale for all tokens" in caplog.text


# what is wrong


def damaged(path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(path, load_external_data=False)
    change(model)
    onnx.save(model, path)


def more_input(model: onnx.ModelProto) -> None:
    port = onnx.helper.make_tensor_value_info("head_mask", onnx.TensorProto.BOOL, [1])
    model.graph.input.append(port)


def no_past(model: onnx.ModelProto) -> None:
    del model.graph.input[3:]


def no_present(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(onnx.helper.make_node("Polish", ["x0"], ["a"], domain="com.microsoft"))
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def other_type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (more_input, r"model\.onnx: takes head_mask, which nothing here feeds"),
        (no_past, r"model\.onnx: keeps no keys and values; export it with past"),
        (no_present, r"model\.onnx: takes past_key_values\.0\.key, but puts out nothing to go there next"),
        (unknown_operator, r"cannot load it: it has no com\.microsoft:Polish for the CPU; take a graph"),
        (other_type, r"model\.onnx: input_ids is float32, expected one of int32, int64"),
    ],
)
def test_a_graph_that_cannot_be_fed(
    change: Callable[[onnx.ModelProto], object], said: str, tmp_path: Path
) -> None:
    damaged(optimum(tmp_path / "tiny") / "model.onnx", change)
    with pytest.raises(ArtifactError, match=said) as caught:
        LLM.load(tmp_path / "tiny")
    assert "\n" not in str(caught.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, r"model_q4\.onnx_data: missing, but model_q4\.onnx keeps weights there"),
        (cut, r"model_q4\.onnx_data: \d+ bytes, but model_q4\.onnx keeps \d+ there; get it again"),
    ],
)
def test_a_data_file_that_is_not_whole(damage: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    damage(transformers_js(tmp_path / "tiny") / "onnx" / "model_q4.onnx_data")
    with pytest.raises(ArtifactError, match=said):
        LLM.load(tmp_path / "tiny")


def test_weights_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    def elsewhere(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "../../config.json"

    damaged(transformers_js(tmp_path / "tiny") / "onnx" / "model_q4.onnx", elsewhere)
    with pytest.raises(
        ArtifactError, match=r"keeps weights in \.\./\.\./config\.json, outside of its folder"
    ):
        LLM.load(tmp_path / "tiny")


@pytest.mark.parametrize("content", [b"", b"nonsense" * 99, b"\x3a\x7f"])
def test_what_is_no_graph(content: bytes, tmp_path: Path) -> None:
    (optimum(tmp_path / "tiny") / "model.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.onnx: (not an ONNX model|takes no input_ids)"):
        LLM.load(tmp_path / "tiny")


def changed(**changes: Any) -> dict[str, Any]:
    return {**GENAI, "model": {**GENAI["model"], **changes}}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "describes no model.decoder"),
        (changed(decoder={}), "model.decoder.filename should be the name of a file, not None"),
        (changed(decoder={"filename": "../x.onnx"}), "should be the name of a file"),
        (changed(decoder={"filename": "other.onnx"}), r"other\.onnx: missing; get the folder again"),
        (changed(context_length=None), r"genai_config\.json: says none of max_position_embeddings"),
    ],
)
def test_settings_of_genai_that_are_none(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=said):
        LLM.load(genai(tmp_path / "tiny", settings))


def test_no_tokenizer(tmp_path: Path) -> None:
    (optimum(tmp_path / "tiny") / "tokenizer.json").unlink()
    with pytest.raises(
        SourceError, match=r"tokenizer\.json: missing \(no tokenizer is there\); make it with"
    ):
        LLM.load(tmp_path / "tiny")


def letters(size: int) -> Tokenizer:
    """Single letters and words that it never makes of them."""
    vocab = {chr(32 + i): i for i in range(95)} | {f"word{i}": 95 + i for i in range(size - 95)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=" "))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        (letters(5000), "makes 93 tokens of 20 words, so its merges are not read; get the tokenizer"),
        (Tokenizer(models.WordLevel({"?": 0}, unk_token="?")), "makes '.*'... of 'the people"),
        (
            Tokenizer(models.WordLevel({"?": 500}, unk_token="?")),
            f"makes token 500, but the model has {VOCAB}",
        ),
    ],
)
def test_a_tokenizer_that_makes_nonsense(tokenizer: Tokenizer, said: str, tmp_path: Path) -> None:
    tokenizer.save(str(optimum(tmp_path / "tiny") / "tokenizer.json"))
    with pytest.raises(ArtifactError, match=said):
        LLM.load(tmp_path / "tiny")


def test_files_are_those_of_the_graph(tmp_path: Path) -> None:
    found = read(transformers_js(tmp_path / "tiny"))
    assert found is not None
    assert [path.name for path in found.files] == ["model_q4.onnx", "model_q4.onnx_data"]


def test_a_config_that_is_not_read(tmp_path: Path) -> None:
    (optimum(tmp_path / "tiny") / "config.json").write_text("{")
    with pytest.raises(SardonyxError, match=r"config\.json: not valid JSON"):
        LLM.load(tmp_path / "tiny")
