"""What is found in graphs: bytes, promises kept and broken, and every slow path there is a rule for."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
import pytest

from random_models import export_random
from sardonyx.export.recipes import RECIPES
from sardonyx.export.structure import slow_paths, structure
from sardonyx.models import architectures
from sardonyx.runtime.manifest import MODEL_NAME, Manifest

EXAMPLE = architectures()["llama"].EXAMPLE


def value(name: str, array: Any = None) -> ir.Value:
    found = ir.Value(name=name)
    if array is not None:
        found.const_value = ir.tensor(array, name=name)
        found.type = ir.TensorType(found.const_value.dtype)
    return found


def graph(*nodes: ir.Node) -> ir.Graph:
    constants = {
        i.name: i for node in nodes for i in node.inputs if i is not None and i.const_value is not None
    }
    return ir.Graph([], list(nodes[-1].outputs), nodes=nodes, initializers=list(constants.values()))


def n_bits(*optional: ir.Value | None, **attributes: int) -> ir.Graph:
    inputs = [
        value("x"),
        value("codes", np.zeros((4, 1, 16), np.uint8)),
        value("scales", np.ones(4, np.float32)),
    ]
    attributes = {"bits": 4, "block_size": 32, "K": 32, "N": 4, **attributes}
    return graph(ir.node("MatMulNBits", [*inputs, *optional], attributes, domain="com.microsoft"))


def integer(kind: str, zero_point: Any) -> ir.Graph:
    """Activations quantized to the type of this zero point, times int8 weights."""
    quantized = ir.node(
        "QuantizeLinear", [value("x"), value("scale", np.float32(1)), value("zero", zero_point)]
    )
    weights = value("w", np.zeros((2, 2), np.int8))
    return graph(quantized, ir.node(kind, [quantized.outputs[0], weights]))


@pytest.mark.parametrize(
    ("slow", "said"),
    [
        (n_bits(), "1 x MatMulNBits with accuracy_level is not set"),
        (n_bits(accuracy_level=0), "accuracy_level"),
        (n_bits(accuracy_level=1, bits=8), "accuracy_level"),
        (n_bits(value("zeros", np.zeros(4, np.float32)), accuracy_level=4), "float zero points"),
        (n_bits(None, value("order", np.zeros(32, np.int32)), accuracy_level=4), "g_idx"),
        (integer("MatMulInteger", np.int8(0)), "1 x MatMulInteger with int8 activations"),
        (integer("MatMulIntegerToFloat", np.int8(0)), "int8 activations"),
    ],
)
def test_slow_paths_are_found(slow: ir.Graph, said: str) -> None:
    (found,) = slow_paths(slow)
    assert said in found


@pytest.mark.parametrize(
    "fast",
    [
        n_bits(accuracy_level=4),
        n_bits(value("zeros", np.zeros(4, np.uint8)), accuracy_level=4),
        n_bits(None, None, value("bias", np.zeros(4, np.float32)), accuracy_level=4),
        integer("MatMulInteger", np.uint8(128)),
        graph(ir.node("MatMul", [value("x"), value("w", np.zeros((2, 2), np.float32))])),
    ],
)
def test_fast_paths_are_left_alone(fast: ir.Graph) -> None:
    assert list(slow_paths(fast)) == []


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
    assert all(found.bytes[kind] for kind in ("embedding", "attention", "mlp", "norms", "rotary"))
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
    weights = [value("w", np.zeros((2, 2), np.int8)), value("s", np.ones(2, np.float32))]
    x = next(node for node in model.graph if node.op_type == "MatMul").inputs[0]
    for weight in weights:
        model.graph.register_initializer(weight)
    model.graph.append(ir.node("DynamicQuantizeMatMul", [x, *weights], domain="com.microsoft"))
    ir.save(model, folder / MODEL_NAME)
    (warning,) = structure(folder, manifest).warnings
    assert "one scale for all tokens" in warning
