"""Where a traced graph multiplies by weights, and reads rows of tables: what a recipe can quantize.

It recognises operators and follows values. It changes nothing, and knows no quantizer.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sardonyx.export.checkpoint import Float32
from sardonyx.export.structure import head_of
from sardonyx.models.graph import Weight

HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"
"""What recipes call the weights that every model has."""


@dataclass(frozen=True)
class ArrayTensor:
    """Float32 values `[outputs, inputs]`, wherever they are mapped from. Implements LazyTensor."""

    array: Float32
    dtype: str = "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def rows(self, start: int, stop: int) -> Float32:
        return np.ascontiguousarray(self.array[start:stop])

    def raw(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self.rows(start, stop).view(np.uint8)


@dataclass(frozen=True)
class Product:
    """One node that reads a weight: `x W^T + bias`, or rows of a table by `x`."""

    node: ir.Node
    x: ir.Value
    weight: Weight
    tensor: ArrayTensor
    bias: ir.Value | None
    is_table: bool


def products(graph: ir.Graph) -> list[Product]:
    """All of them, in the graph's order. What is stored once has one name."""
    names: dict[str, str] = {}
    head = head_of(graph)
    found = []
    for node in graph:
        read = _read(node)
        if read is None:
            continue
        x, stored, turned, bias, is_table = read
        assert stored.name is not None
        assert stored.const_value is not None
        wanted = TABLE if is_table else HEAD if node is head else _canonical(node, stored.name)
        name = names.setdefault(stored.name, _unused(wanted, names.values()))
        array = stored.const_value.numpy()
        tensor = ArrayTensor(array.T if turned else array)
        found.append(Product(node, x, Weight(name, tensor.shape), tensor, bias, is_table))
    return found


Read = tuple[ir.Value, ir.Value, bool, ir.Value | None, bool]
"""Activations, the stored weight, whether it lies as `[inputs, outputs]`, bias, whether it is a table."""


def _read(node: ir.Node) -> Read | None:
    if node.op_type == "Gather" and _axis(node) == 0:
        table, ids = node.inputs[0], node.inputs[1]
        if _is_matrix(table) and ids is not None and _source(ids).name == "input_ids":
            assert table is not None
            return ids, table, False, None, True
    if node.op_type in ("MatMul", "Gemm") and (x := node.inputs[0]) is not None:
        weight, turned = _untransposed(node.inputs[1], turned=not _number(node, "transB"))
        plain = not _number(node, "transA") and _number(node, "alpha", 1) == _number(node, "beta", 1) == 1
        if weight is not None and plain:
            return x, weight, turned, node.inputs[2] if len(node.inputs) > 2 else None, False
    return None


def _untransposed(value: ir.Value | None, *, turned: bool) -> tuple[ir.Value | None, bool]:
    """The stored matrix behind a value, if there is one, and whether it is turned."""
    maker = value.producer() if value is not None else None
    if maker is not None and maker.op_type == "Transpose":
        value, turned = maker.inputs[0], not turned
    return (value, turned) if _is_matrix(value) else (None, turned)


def _is_matrix(value: ir.Value | None) -> bool:
    return (
        value is not None
        and value.const_value is not None
        and value.is_initializer()
        and value.const_value.dtype == ir.DataType.FLOAT
        and len(value.const_value.shape) == 2
    )


def _source(value: ir.Value) -> ir.Value:
    """What a value is but for its shape and type."""
    while (maker := value.producer()) is not None and maker.op_type in ("Cast", "Reshape", "Identity"):
        first = maker.inputs[0]
        assert first is not None
        value = first
    return value


def _canonical(node: ir.Node, stored: str) -> str:
    """Named after the module that was traced: `/model/layers.0/mlp/up_proj/MatMul`, or as it is stored."""
    path = [part for part in (node.name or "").strip("/").split("/")[:-1] if part]
    name = ".".join(path) if path else re.sub(r"[^\w.]+", "_", stored).removesuffix(".weight")
    return f"{name}.weight"


def _unused(name: str, used: Iterable[str]) -> str:
    taken = set(used)
    stem = name.removesuffix(".weight")
    numbered = (f"{stem}.{i}.weight" for i in range(1, len(taken) + 2))
    return name if name not in taken else next(other for other in numbered if other not in taken)


def _axis(node: ir.Node) -> float:
    return _number(node, "axis")


def _number(node: ir.Node, name: str, default: float = 0) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value
