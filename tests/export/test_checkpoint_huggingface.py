"""Model folders as Hugging Face lays them out: which file says what, and folders that are not whole."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from checkpoint_files import Floats, llama_tensors, write_json
from sardonyx.export.checkpoint import open_checkpoint
from sardonyx.runtime.errors import SourceError
from sardonyx.runtime.huggingface.tokenizer_files import TokenizerFiles

CONFIG = {"model_type": "llama", "hidden_size": 64, "eos_token_id": 7}
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole little model."""
    path = tmp_path / "tiny"
    path.mkdir()
    write_json(path / "config.json", CONFIG)
    save_file(llama_tensors(), path / "model.safetensors")
    tokenizer = Tokenizer(
        models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken("<s>"), AddedToken("</s>")])
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def shard(path: Path, parts: list[dict[str, Floats]]) -> dict[str, str]:
    """Replace model.safetensors by shards with an index; gives the index's map."""
    (path / "model.safetensors").unlink()
    places = {}
    for i, part in enumerate(parts, 1):
        name = f"model-{i:05}-of-{len(parts):05}.safetensors"
        save_file(part, path / name)
        places |= dict.fromkeys(part, name)
    write_json(path / INDEX, {"metadata": {"total_size": 1}, "weight_map": places})
    return places


def halves() -> list[dict[str, Floats]]:
    items = list(llama_tensors().items())
    return [dict(items[:4]), dict(items[4:])]


def test_one_file(folder: Path) -> None:
    write_json(folder / "generation_config.json", {"temperature": 0.6})
    checkpoint = open_checkpoint(folder)
    assert (checkpoint.name, checkpoint.format) == ("tiny", "safetensors")
    assert (checkpoint.config, checkpoint.generation) == (CONFIG, {"temperature": 0.6})
    assert checkpoint.files == (folder / "model.safetensors",)
    assert checkpoint.names() == llama_tensors().keys()
    for name, values in llama_tensors().items():
        np.testing.assert_array_equal(checkpoint.tensor(name).rows(1, 9), values[1:9])
    with pytest.raises(KeyError):
        checkpoint.tensor("nothing")


def test_shards(folder: Path) -> None:
    places = shard(folder, halves())
    checkpoint = open_checkpoint(folder)
    assert checkpoint.files == tuple(folder / name for name in sorted(set(places.values())))
    for name, values in llama_tensors().items():
        np.testing.assert_array_equal(checkpoint.tensor(name).rows(0, len(values)), values)


def test_a_missing_shard(folder: Path) -> None:
    places = shard(folder, halves())
    missing = folder / max(places.values())
    missing.unlink()
    with pytest.raises(SourceError, match=f"{missing}: missing, but {INDEX} names it"):
        open_checkpoint(folder)


def test_an_index_that_lies(folder: Path) -> None:
    places = shard(folder, halves())
    write_json(folder / INDEX, {"weight_map": {**places, "more": min(places.values())}})
    with pytest.raises(
        SourceError, match=rf"00001-of-00002.safetensors: has no more, which {INDEX} puts there"
    ):
        open_checkpoint(folder)


def test_a_tensor_in_two_shards(folder: Path) -> None:
    shard(folder, [llama_tensors(), {"model.norm.weight": np.ones(64, np.float32)}])
    with pytest.raises(SourceError, match=r"tensor model.norm.weight is also in model-00001-of-00002"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "has no weight_map"),
        ({"weight_map": {"a": 1}}, "has no weight_map"),
        ({"weight_map": {"a": "../model.safetensors"}}, "which is not in this folder"),
        ({"weight_map": {}}, "holds no tensors"),
    ],
)
def test_an_index_that_is_not_one(index: Any, message: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    write_json(folder / INDEX, index)
    with pytest.raises(SourceError, match=message):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"there are no weights \(model.safetensors, or shards"),
        (["pytorch_model.bin"], "only there as pytorch_model.bin.*convert them with transformers"),
        (["model-00001-of-00002.safetensors"], f"no {INDEX}, only model-00001-of-00002.safetensors"),
    ],
)
def test_no_weights(files: list[str], message: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for name in files:
        (folder / name).write_bytes(b"")
    with pytest.raises(SourceError, match=message):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "config.json: not valid JSON .Expecting value at line 1, column 1"),
        ('{"model_type": "llama",}', "config.json: not valid JSON .* at line 1"),
        ("[]", "config.json: should hold a JSON object, not a list"),
        ("[" * 100_000, "nested too deeply"),
        ("{}", "config.json: says no model_type"),
        ('{"model_type": 7}', "config.json: says no model_type"),
        ('{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}', r"quantized \(gptq\)"),
        ('{"model_type": "llama", "quantization_config": "awq"}', r"quantized \(awq\)"),
    ],
)
def test_configurations_that_are_refused(content: str, message: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(SourceError, match=message):
        open_checkpoint(folder)


def test_a_configuration_that_is_not_text(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match=r"config.json: not UTF-8"):
        open_checkpoint(folder)


def test_what_is_not_a_model_folder(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="give the folder that holds it"):
        open_checkpoint(folder / "model.safetensors")
    (folder / "config.json").unlink()
    with pytest.raises(SourceError, match=r"config.json: no such file"):
        open_checkpoint(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="not a model that can be read"):
        open_checkpoint(tmp_path / "empty")


def files_of(folder: Path, options: Any = None) -> TokenizerFiles:
    if options is not None:
        write_json(folder / "tokenizer_config.json", options)
    return open_checkpoint(folder).tokenizer()


def tokens_of(files: TokenizerFiles, text: str) -> list[str]:
    tokens: list[str] = Tokenizer.from_str(files.tokenizer_json.decode()).encode(text).tokens
    return tokens


def test_tokenizer_alone(folder: Path) -> None:
    files = files_of(folder)
    assert tokens_of(files, "a b</s>") == ["a", "b", "</s>"]
    assert (files.chat_template, files.bos_id, files.eos_ids, files.special_texts) == (None, None, (7,), {})


def test_special_texts_in_their_two_spellings_and_places(folder: Path) -> None:
    write_json(folder / "special_tokens_map.json", {"bos_token": "<s>", "eos_token": "a", "pad_token": "b"})
    files = files_of(folder, {"eos_token": {"content": "</s>", "lstrip": False}, "pad_token": None})
    assert files.special_texts == {"bos_token": "<s>", "eos_token": "</s>"}
    assert files.bos_id == 1


@pytest.mark.parametrize(
    ("generation", "config", "ids"),
    [
        ({"eos_token_id": [2, 3]}, 7, (2, 3)),
        ({"eos_token_id": 3}, 7, (3,)),
        ({}, 7, (7,)),
        ({"eos_token_id": None}, [5, 6], (5, 6)),
        ({}, None, (2,)),
    ],
)
def test_where_an_answer_ends(generation: Any, config: Any, ids: tuple[int, ...], folder: Path) -> None:
    write_json(folder / "config.json", {"model_type": "llama", "eos_token_id": config})
    write_json(folder / "generation_config.json", generation)
    assert files_of(folder, {"eos_token": "</s>"}).eos_ids == ids


@pytest.mark.parametrize("value", ["</s>", [1, "2"], -1, True, []])
def test_an_end_that_is_not_an_id(value: Any, folder: Path) -> None:
    write_json(folder / "generation_config.json", {"eos_token_id": value})
    with pytest.raises(SourceError, match="eos_token_id should be an id or a list of ids"):
        files_of(folder)


def test_chat_template_in_its_three_places(folder: Path) -> None:
    assert files_of(folder, {"chat_template": "third"}).chat_template == "third"
    write_json(folder / "chat_template.json", {"chat_template": "second"})
    assert files_of(folder).chat_template == "second"
    (folder / "chat_template.jinja").write_text("first é", "utf-8")
    assert files_of(folder).chat_template == "first é"


def test_named_chat_templates(folder: Path) -> None:
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    assert files_of(folder, {"chat_template": named}).chat_template == "d"
    with pytest.raises(SourceError, match="has chat templates named tool_use, but none named default"):
        files_of(folder, {"chat_template": named[:1]})
    with pytest.raises(SourceError, match="chat_template should be a text, not a int"):
        files_of(folder, {"chat_template": 3})


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True}, ["</s>", "a"]),
        ({"tokenizer_class": "LlamaTokenizerFast"}, ["<s>", "a"]),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, ["a"]),
        ({"tokenizer_class": "GemmaTokenizer", "add_eos_token": True}, ["<s>", "a", "</s>"]),
        ({"tokenizer_class": "GPTNeoXTokenizer"}, ["a"]),
    ],
)
def test_classes_that_surround_texts_whatever_tokenizer_json_says(
    options: dict[str, Any], tokens: list[str], folder: Path
) -> None:
    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    tokenizer.save(path)
    assert tokens_of(files_of(folder, {**options, "bos_token": "<s>", "eos_token": "</s>"}), "a") == tokens


def test_tokens_that_only_the_configuration_lists(folder: Path) -> None:
    added = {"5": {"content": "<tool>", "special": False}, "1": {"content": "<s>", "special": True}}
    files = files_of(folder, {"added_tokens_decoder": added})
    assert tokens_of(files, "a<tool>b") == ["a", "<tool>", "b"]
    added["9"] = {"content": "<late>", "special": False}
    with pytest.raises(SourceError, match=r"says that '<late>' is token 9, but tokenizer.json makes it 6"):
        files_of(folder, {"added_tokens_decoder": added})
    for broken in ({"x": {"content": "y"}}, {"5": "y"}, [1]):
        with pytest.raises(SourceError, match="added_tokens_decoder is not a list of tokens by id"):
            files_of(folder, {"added_tokens_decoder": broken})


def test_tokenizers_that_are_not_there(folder: Path) -> None:
    with pytest.raises(SourceError, match="has no '<bos>', which begins or ends its texts"):
        files_of(folder, {"bos_token": "<bos>"})
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "Strange"}}))
    with pytest.raises(
        SourceError, match=r"tokenizer.json: not a tokenizer that the tokenizers library can read"
    ):
        files_of(folder, {})
    (folder / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match=r"tokenizer.json: missing \(no tokenizer is there\)"):
        files_of(folder)
    (folder / "tokenizer.model").write_bytes(b"")
    with pytest.raises(SourceError, match=r"only tokenizer.model is there\); make it with transformers"):
        files_of(folder)
