"""export() as callers meet it: what it reports, and how it refuses."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from random_models import UNMEASURED, ArrayCheckpoint, random_checkpoint, save_folder
from sardonyx.export.api import Options, export
from sardonyx.export.cost_graph import cost
from sardonyx.export.recipes import RECIPES
from sardonyx.models import architectures, describe
from sardonyx.runtime.errors import RequestError, SardonyxError, SourceError, UnknownArchitecture
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.manifest import read_manifest

UNIVERSAL = [recipe.name for recipe in RECIPES.values() if recipe.rules]
"""The recipes whose rules do not depend on how the weights are stored."""
EXAMPLE = architectures()["llama"].EXAMPLE


def with_config(**changes: Any) -> ArrayCheckpoint:
    """The example's weights under a config that says something else; None takes a field away."""
    config = {field: value for field, value in {**EXAMPLE, **changes}.items() if value is not None}
    return replace(random_checkpoint(EXAMPLE), config=config)


def with_arrays(change: Callable[[dict[str, Any]], object]) -> ArrayCheckpoint:
    checkpoint = random_checkpoint(EXAMPLE)
    arrays = dict(checkpoint.arrays)
    change(arrays)
    return replace(checkpoint, arrays=arrays)


def refusal(
    kind: type[SardonyxError],
    source: Any,
    shelf: Path,
    recipe: str = "int4",
    options: Options = UNMEASURED,
) -> str:
    """The one line with which an export is refused, nothing having been left behind."""
    before = sorted(os.listdir(shelf))
    with pytest.raises(kind) as caught:
        export(source, shelf / "parent" / "out", recipe=recipe, options=options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert sorted(os.listdir(shelf)) == before
    return message


@pytest.mark.parametrize("recipe", UNIVERSAL)
@pytest.mark.parametrize("tied", [True, False])
def test_progress_counts_every_parameter_once(tmp_path: Path, recipe: str, tied: bool) -> None:
    checkpoint = random_checkpoint({**EXAMPLE, "tie_word_embeddings": tied, "attention_bias": True})
    total = cost(describe(checkpoint.config)).parameters
    seen: list[tuple[int, int, str]] = []
    export(
        checkpoint,
        tmp_path / "out",
        recipe=recipe,
        options=UNMEASURED,
        progress=lambda *report: seen.append(report),
    )
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert {of for _, of, _ in seen} == {total}
    assert seen[-1][0] == total
    assert {what for _, _, what in seen} == {f"writing random as {recipe}"}


def test_the_manifest_returned_is_the_manifest_written(tmp_path: Path) -> None:
    manifest = export(random_checkpoint(EXAMPLE), tmp_path / "out", options=UNMEASURED)
    assert manifest == read_manifest(tmp_path / "out")
    assert set(manifest.files) == set(os.listdir(tmp_path / "out")) - {"sardonyx.json"}
    assert manifest.parameters == cost(describe(EXAMPLE)).parameters
    assert set(manifest.weights) == {
        name for name, array in random_checkpoint(EXAMPLE).arrays.items() if array.ndim == 2
    }


def test_a_folder_of_files_gives_the_artifact_of_its_arrays(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(EXAMPLE)
    exported = [
        export(source, tmp_path / name, recipe="int8", options=UNMEASURED).files
        for name, source in (("arrays", checkpoint), ("files", save_folder(checkpoint, tmp_path / "model")))
    ]
    for name in ("model.onnx", "model.onnx.data"):
        assert exported[0][name] == exported[1][name]


def test_the_same_export_twice_is_equal_to_the_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(random_checkpoint(EXAMPLE), tmp_path / name, options=UNMEASURED)
    for name in os.listdir(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_existing_artifact_survives_an_export_that_fails(tmp_path: Path) -> None:
    (tmp_path / "parent").mkdir()
    export(random_checkpoint(EXAMPLE), tmp_path / "parent" / "out", options=UNMEASURED)
    refusal(SourceError, with_config(hidden_size=None), tmp_path, options=replace(UNMEASURED, force=True))
    assert os.listdir(tmp_path / "parent") == ["out"]
    assert LLM.load(tmp_path / "parent" / "out").generate([1, 2, 3]).tokens


def test_an_unknown_architecture(tmp_path: Path) -> None:
    message = refusal(UnknownArchitecture, with_config(model_type="lama"), tmp_path)
    assert "'lama'" in message
    assert "nearest: llama" in message


def test_an_unknown_architecture_of_hugging_face_has_a_way_out(tmp_path: Path) -> None:
    folder = save_folder(
        replace(random_checkpoint(EXAMPLE), config={**EXAMPLE, "model_type": "opt"}), tmp_path / "a"
    )
    with pytest.raises(UnknownArchitecture, match=r"'opt' is not known.*; try --via optimum$"):
        export(folder, tmp_path / "out")


@pytest.mark.parametrize("model_type", [None, "", 7, "EXAMPLE", "graph", "parts"])
def test_what_is_no_architecture_at_all(tmp_path: Path, model_type: Any) -> None:
    assert "is not known" in refusal(UnknownArchitecture, with_config(model_type=model_type), tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "48"}, "hidden_size is '48'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"rms_norm_eps": -1}, "rms_norm_eps is -1"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1"),
        ({"rope_scaling": {"rope_type": "spiral", "factor": 2}}, "rope_scaling 'spiral' is not known"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2, "twist": 1}}, "'linear' has twist, which is"),
        ({"rope_scaling": {"type": "linear"}}, "factor is missing"),
        ({"num_key_value_heads": 4}, "num_attention_heads is 6, not a multiple of num_key_value_heads, 4"),
    ],
)
def test_a_config_at_fault(tmp_path: Path, changes: Mapping[str, Any], said: str) -> None:
    checkpoint = random_checkpoint(EXAMPLE)
    if changes.get("head_dim"):
        checkpoint = random_checkpoint({**EXAMPLE, **changes})
    config = {k: v for k, v in {**EXAMPLE, **changes}.items() if v is not None}
    source = save_folder(replace(checkpoint, config={"vocab_size": 99, **config}), tmp_path / "model")
    message = refusal(SourceError, source, tmp_path)
    assert said in message
    assert str(source) in message


def test_all_tensors_that_do_not_fit_are_listed_at_once(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(EXAMPLE)
    arrays = dict(checkpoint.arrays)
    del arrays["model.norm.weight"], arrays["model.layers.1.mlp.up_proj.weight"]
    arrays["model.layers.0.self_attn.q_proj.bias"] = np.zeros(96, np.float32)
    arrays["model.embed_tokens.weight"] = np.zeros((98, 48), np.float32)
    source = save_folder(replace(checkpoint, arrays=arrays), tmp_path / "model")
    message = refusal(SourceError, source, tmp_path)
    assert str(source) in message
    assert "missing: model.layers.1.mlp.up_proj.weight, model.norm.weight;" in message
    assert "not used: model.layers.0.self_attn.q_proj.bias;" in message
    assert "model.embed_tokens.weight is [98, 48], the config says [99, 48]" in message


def test_a_long_list_of_tensors_is_counted(tmp_path: Path) -> None:
    message = refusal(SourceError, with_config(num_hidden_layers=4), tmp_path)
    assert "and 6 more" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"]
)
@pytest.mark.parametrize("recipe", UNIVERSAL)
def test_a_weight_that_is_no_number(tmp_path: Path, recipe: str, name: str, value: float) -> None:
    checkpoint = with_arrays(lambda arrays: arrays.update({name: arrays[name].copy()}))
    checkpoint.arrays[name].flat[-1] = value
    message = refusal(SourceError, checkpoint, tmp_path, recipe=recipe)
    assert f"tensor {name} holds NaN or infinity" in message


def test_tensors_without_effect_are_no_fault(tmp_path: Path) -> None:
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}
    export(with_arrays(lambda arrays: arrays.update(extra)), tmp_path / "out", options=UNMEASURED)
    assert (tmp_path / "out" / "model.onnx").is_file()


@pytest.mark.parametrize("context", [0, -1, 129])
def test_a_context_out_of_range(tmp_path: Path, context: int) -> None:
    options = replace(UNMEASURED, context=context)
    message = refusal(RequestError, random_checkpoint(EXAMPLE), tmp_path, options=options)
    assert f"context {context} is out of range" in message
    assert "1 to 128" in message


def test_a_smaller_context_is_what_the_artifact_holds(tmp_path: Path) -> None:
    manifest = export(random_checkpoint(EXAMPLE), tmp_path / "out", options=replace(UNMEASURED, context=8))
    assert manifest.context_length == 8
    with pytest.raises(RequestError, match="8 positions"):
        LLM.load(tmp_path / "out").generate([1] * 8)


def test_an_unknown_recipe(tmp_path: Path) -> None:
    message = refusal(RequestError, random_checkpoint(EXAMPLE), tmp_path, recipe="int3")
    assert "'int3'" in message
    assert all(recipe in message for recipe in RECIPES)


@pytest.mark.parametrize("name", ["nothing", "empty", "text"])
def test_no_model_at_all(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("not a model")
    assert str(tmp_path / name) in refusal(SourceError, tmp_path / name, tmp_path)
