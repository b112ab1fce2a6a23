"""Every slow path there is a rule for is found in a file, and nothing else is."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from sardonyx.runtime.onnx_outline import Outline, read_outline
from sardonyx.runtime.slow_paths import shared_scales, slow_paths


def outlined(graph: ir.Graph, folder: Path) -> Outline:
    """As it is read from a file."""
    ir.save(ir.Model(graph, ir_version=10), folder / "model.onnx")
    return read_outline(folder / "model.onnx")


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
def test_slow_paths_are_found(slow: ir.Graph, said: str, tmp_path: Path) -> None:
    (found,) = slow_paths(outlined(slow, tmp_path))
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
def test_fast_paths_are_left_alone(fast: ir.Graph, tmp_path: Path) -> None:
    assert list(slow_paths(outlined(fast, tmp_path))) == []


def test_scales_of_all_tokens_are_told(tmp_path: Path) -> None:
    whole = graph(ir.node("DynamicQuantizeLinear", [value("x")], num_outputs=3))
    (found,) = shared_scales(outlined(whole, tmp_path))
    assert found.startswith("1 x DynamicQuantizeLinear: one scale")
