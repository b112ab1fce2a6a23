"""What is found in graphs: bytes, promises kept and broken."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
import pytest

from random_models import export_random
from sardonyx.export.recipes import RECIPES
from sardonyx.export.structure import structure
from sardonyx.models import architectures
from sardonyx.runtime.manifest import MODEL_NAME, Manifest

EXAMPLE = architectures()["llama"].EXAMPLE


def exported(tmp_path: Path, recipe: str, **config: Any) -> tuple[Path, Manifest]:
    _, manifest = export_random({**EXAMPLE, **config}, tmp_path / recipe, recipe)
    return tmp_path / recipe, manifest


@pytest.mark.parametrize("recipe", [name for name, recipe in RECIPES.items() if recipe.rules])
@pytest.mark.parametrize("tied", [True, False])
def test_what_is_exported_has_no_fault(tmp_path: Path, recipe: str, tied: bool) -> None:
    folder, manifest = exported(tmp_path, recipe, tie_word_embeddings=tied)
    found = structure(folder, manifest)
    assert found.faults == []
    assert found.ops["GroupQueryAttention"] == EXAMPLE["num_hidden_layers"]
    assert (found.bytes["head"] == 0) == tied
    assert all(found.bytes[kind] for kind in ("embedding", "attention", "mlp", "norms"))
    stored = (folder / "model.onnx.data").stat().st_size
    padding = 4096 * 40
    assert stored - padding < sum(found.bytes.values()) - found.bytes["other"] <= stored


def test_bytes_are_those_of_the_weights(tmp_path: Path) -> None:
    found = structure(*exported(tmp_path, "fp32"))
    width, inner, layers = EXAMPLE["hidden_size"], EXAMPLE["intermediate_size"], EXAMPLE["num_hidden_layers"]
    assert found.bytes["embedding"] == 4 * EXAMPLE["vocab_size"] * width
    assert found.bytes["mlp"] == 4 * 3 * width * inner * layers
    assert found.bytes["norms"] == 4 * width * (2 * layers + 1)


def test_a_graph_that_is_not_what_its_manifest_says(tmp_path: Path) -> None:
    folder, manifest = exported(tmp_path, "fp32")
    promised = msgspec.structs.replace(manifest, weights=dict.fromkeys(manifest.weights, "int4/32"))
    faults = structure(folder, promised).faults
    assert "9 weights that the recipe quantizes are multiplied as float32" in faults
    assert "the head is Gemm, not quantized" in faults
    fewer = msgspec.structs.replace(manifest, states=manifest.states[:2])
    assert structure(folder, fewer).faults == [
        "1 layers keep keys and values, but 2 nodes are GroupQueryAttention"
    ]


def test_one_scale_for_all_tokens_is_warned_of(tmp_path: Path) -> None:
    folder, manifest = exported(tmp_path, "fp32")
    model = ir.load(folder / MODEL_NAME)
    arrays = {"w": np.zeros((2, 2), np.int8), "s": np.ones(2, np.float32)}
    weights = [ir.Value(name=name, const_value=ir.tensor(a, name=name)) for name, a in arrays.items()]
    x = next(node for node in model.graph if node.op_type == "MatMul").inputs[0]
    for weight in weights:
        model.graph.register_initializer(weight)
    model.graph.append(ir.node("DynamicQuantizeMatMul", [x, *weights], domain="com.microsoft"))
    ir.save(model, folder / MODEL_NAME)
    (warning,) = structure(folder, manifest).warnings
    assert "one scale for all tokens" in warning
