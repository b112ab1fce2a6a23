"""What a GGUF file says about its model, in Hugging Face's terms."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_files import (
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LLAMA_METADATA,
    VOCAB,
    WIDTH,
    gguf_tensors,
    llama_tensors,
    write_gguf,
    write_llama,
)
from sardonyx.export.checkpoint import open_checkpoint
from sardonyx.export.checkpoint.gguf_rope import llama3_divisors, llama3_scaling
from sardonyx.runtime.errors import MissingExtra, SourceError, UnknownArchitecture


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in LLAMA_METADATA.items() if key not in keys}


def config_of(path: Path, metadata: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    return open_checkpoint(write_llama(path / "x.gguf", metadata)).config


def test_config_is_that_of_hugging_face(tmp_path: Path) -> None:
    ids = {
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.eot_token_id": 3,
    }
    assert config_of(tmp_path, ids | {"llama.rope.freq_base": 5e5}) == {
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": None,
        "vocab_size": VOCAB,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
    }


def test_what_the_file_does_not_say(tmp_path: Path) -> None:
    metadata = without("llama.attention.head_count_kv", "llama.rope.dimension_count", "llama.vocab_size")
    tensors = gguf_tensors(llama_tensors())
    del tensors["blk.0.attn_k.weight"], tensors["blk.0.attn_v.weight"]
    config = open_checkpoint(write_gguf(tmp_path / "x.gguf", tensors, metadata)).config
    assert (config["num_key_value_heads"], config["head_dim"]) == (HEADS, HEAD_DIM)
    assert config["rope_theta"] == 10000.0


def test_names_and_values_are_those_of_hugging_face(tmp_path: Path) -> None:
    tensors = llama_tensors(head=True, bias=True)
    path = write_gguf(tmp_path / "little.gguf", gguf_tensors(tensors), LLAMA_METADATA)
    checkpoint = open_checkpoint(path)
    assert checkpoint.names() == tensors.keys()
    assert (checkpoint.config["tie_word_embeddings"], checkpoint.config["attention_bias"]) == (False, True)
    for name, values in tensors.items():
        np.testing.assert_array_equal(checkpoint.tensor(name).rows(0, len(values)), values)
    with pytest.raises(KeyError):
        checkpoint.tensor("model.layers.1.mlp.up_proj.weight")
    assert (checkpoint.name, checkpoint.format, checkpoint.generation) == ("little", "gguf", {})
    assert checkpoint.files == (path,)


def test_the_name_is_the_models_own_if_it_has_one(tmp_path: Path) -> None:
    assert open_checkpoint(write_llama(tmp_path / "x.gguf", {"general.name": "Tiny"})).name == "Tiny"
    assert open_checkpoint(tmp_path / "x.gguf", "known as").name == "known as"


@pytest.mark.parametrize(
    ("metadata", "scaling"),
    [
        ({"rope.scaling.type": "none", "rope.scaling.factor": 2.0}, None),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope.scaling.factor": 1.0}, None),
        ({"rope.scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        (
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 8.0,
                "rope.scaling.original_context_length": 64,
            },
            {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64},
        ),
    ],
)
def test_rotary_scaling(metadata: dict[str, Any], scaling: dict[str, Any] | None, tmp_path: Path) -> None:
    stated = {f"llama.{key}": value for key, value in metadata.items()}
    assert config_of(tmp_path, stated)["rope_scaling"] == scaling


def write_with_divisors(path: Path, divisors: Any, theta: float) -> Path:
    tensors = gguf_tensors(llama_tensors()) | {"rope_freqs.weight": np.asarray(divisors, np.float32)}
    return write_gguf(path / "x.gguf", tensors, {**LLAMA_METADATA, "llama.rope.freq_base": theta})


LLAMA_31 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize("count", [32, 64])
@pytest.mark.parametrize(
    "scaling",
    [LLAMA_31, LLAMA_31 | {"factor": 32.0}, LLAMA_31 | {"factor": 10.5, "high_freq_factor": 5.0}],
)
def test_llama3_scaling_is_recovered_from_its_effect(scaling: dict[str, Any], count: int) -> None:
    divisors = llama3_divisors(scaling, count, 500000.0).astype(np.float32)
    assert llama3_scaling(divisors, 500000.0) == scaling


def test_a_scaling_with_another_low_factor_has_an_equal_with_one() -> None:
    odd = LLAMA_31 | {
        "low_freq_factor": 2.0,
        "high_freq_factor": 8.0,
        "original_max_position_embeddings": 16384,
    }
    assert llama3_scaling(llama3_divisors(odd, 64, 500000.0).astype(np.float32), 500000.0) == LLAMA_31


def test_rotary_divisors_of_a_file(tmp_path: Path) -> None:
    theta = 500000.0  # two waves of eight frequencies are long, several are between only for a low context
    scaling = LLAMA_31 | {"original_max_position_embeddings": 8192, "high_freq_factor": 300.0}
    path = write_with_divisors(tmp_path, llama3_divisors(scaling, HEAD_DIM // 2, theta), theta)
    checkpoint = open_checkpoint(path)
    assert checkpoint.config["rope_scaling"] == scaling
    assert "rope_freqs.weight" not in checkpoint.names()


def test_rotary_divisors_of_one_change_nothing(tmp_path: Path) -> None:
    path = write_with_divisors(tmp_path, np.ones(HEAD_DIM // 2), 1e4)
    assert open_checkpoint(path).config["rope_scaling"] is None


@pytest.mark.parametrize(
    "divisors", [np.linspace(1, 8, 8) ** 2, np.full(8, 8.0), np.full(8, np.nan), np.zeros(8), np.ones(4)]
)
def test_rotary_divisors_of_another_origin_are_refused(divisors: Any, tmp_path: Path) -> None:
    path = write_with_divisors(tmp_path, divisors, 1e4)
    with pytest.raises(SourceError, match="rotary scaling that is not llama3's"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"llama.expert_used_count": 2}, "llama.expert_used_count is 2; only 0 is supported"),
        ({"llama.expert_count": 8}, "llama.expert_used_count is missing"),
        ({"llama.logit_scale": 2.0}, "llama.logit_scale is not understood"),
        ({"llama.block_count": "one"}, "llama.block_count should be of type int, not 'one'"),
        ({"llama.attention.head_count": [4, 4]}, "should be of type int, not a list of 2"),
        ({"llama.attention.head_count": 0}, "num_attention_heads is 0"),
        ({"llama.rope.dimension_count": 8}, "llama.rope.dimension_count is 8, but heads are 16 wide"),
        ({"llama.attention.value_length": 32}, "llama.attention.value_length is 32, but heads are 16"),
        ({"llama.attention.head_count_kv": 4}, "attn_k.weight has 32 rows, not 4 heads of 16"),
        ({"llama.rope.scaling.type": "longrope"}, "rotary scaling 'longrope' is not supported"),
        ({"llama.rope.scaling.type": "yarn"}, "scaling.original_context_length is missing"),
        ({"split.count": 3}, "one part of a split model"),
    ],
)
def test_metadata_that_is_not_understood(metadata: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        config_of(tmp_path, metadata)


def test_missing_metadata_is_named(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", gguf_tensors(llama_tensors()), without("llama.block_count"))
    with pytest.raises(SourceError, match=r"metadata llama.block_count is missing"):
        open_checkpoint(path)


def test_an_architecture_without_a_table(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", {}, {}, architecture="mamba")
    with pytest.raises(
        UnknownArchitecture, match=r"architecture 'mamba' is not known here; readable: .*llama"
    ):
        open_checkpoint(path)


@pytest.mark.parametrize("name", ["blk.0.attn_q.scale", "blk.0.ssm_in.weight", "cls.weight", "strange"])
def test_a_tensor_without_a_place(name: str, tmp_path: Path) -> None:
    tensors = gguf_tensors(llama_tensors()) | {name: np.ones(32, np.float32)}
    path = write_gguf(tmp_path / "x.gguf", tensors, LLAMA_METADATA)
    with pytest.raises(SourceError, match=rf"tensor {name} has no place in a llama model"):
        open_checkpoint(path)


def test_a_file_without_an_embedding(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not a language model"):
        open_checkpoint(write_gguf(tmp_path / "x.gguf", {}, LLAMA_METADATA))


def test_without_the_gguf_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_llama(tmp_path / "x.gguf")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(MissingExtra, match=r"pip install 'sardonyx\[export\]'"):
        open_checkpoint(path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_llama(tmp_path / "x.gguf")

    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceError, match=r"x.gguf: cannot be read \(Permission denied\)"):
        open_checkpoint(path)
