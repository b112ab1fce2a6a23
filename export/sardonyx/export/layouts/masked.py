"""The graph of an artifact, fed the way of other programs: with an attention mask, and logits of every token.

Lengths are counted from the mask, and what chose rows of logits takes them all. The nodes between stay what
they are, and so do the weights.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir

LENGTHS_INPUT = 16
"""`query_seqlens` of GroupQueryAttention, which kernels before onnxruntime 1.32 do not have."""

IR_VERSION = 10


def masked(model: ir.Model, weights: str) -> ir.Model:
    """Change a model of this project's in place. `weights` is what its weight file is called from now on."""
    graph = model.graph
    ports = {port.name: port for port in graph.inputs}
    shape = next(output for output in graph.outputs if output.name == "logits").shape
    assert shape is not None
    vocab = shape[1]
    assert isinstance(vocab, int)
    for node in graph:
        if node.op_type == "GroupQueryAttention":
            _without_lengths(node)
    mask = _port("attention_mask", ["batch_size", "total_sequence_length"])
    _replace_lengths(graph, ports, mask)
    _all_logits(graph, ports["input_ids"], vocab)
    graph.inputs[:] = [
        _port("input_ids", ["batch_size", "sequence_length"], ports["input_ids"]),
        mask,
        *(port for port in graph.inputs if (port.name or "").startswith("past_key_values.")),
    ]
    _name_axes(graph)
    for value in graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = _moved(value.const_value, weights)
    model.ir_version = IR_VERSION
    return model


def _without_lengths(node: ir.Node) -> None:
    if len(node.inputs) > LENGTHS_INPUT:
        node.replace_input_with(LENGTHS_INPUT, None)
        last = max(i for i, value in enumerate(node.inputs) if value is not None)
        node.resize_inputs(last + 1)


def _replace_lengths(graph: ir.Graph, ports: dict[str | None, ir.Value], mask: ir.Value) -> None:
    """What was fed as lengths, from the mask: positions of a row, of the longest, and new tokens."""
    made = _Maker(graph)
    positions = made("Cast", made("ReduceSum", mask, made.constant([1]), keepdims=0), to=ir.DataType.INT32)
    total = made("Cast", made("Squeeze", made("Shape", mask, start=1, end=2)), to=ir.DataType.INT32)
    width = made("Cast", made("Shape", ports["input_ids"], start=1, end=2), to=ir.DataType.INT32)
    lengths = {
        "seqlens_k": made("Sub", positions, made.constant(1, np.int32)),
        "total_sequence_length": total,
        "query_seqlens": made("Min", width, positions),
    }
    for name, value in lengths.items():
        if name in ports:
            ir.convenience.replace_all_uses_with(ports[name], value)
    made.place_first()


def _all_logits(graph: ir.Graph, ids: ir.Value, vocab: int) -> None:
    """Every row instead of those that are asked for, and the shape that others expect."""
    made = _Maker(graph)
    rows = next(port for port in graph.inputs if port.name == "logit_rows")
    count = made("Squeeze", made("Size", ids))
    every = made("Range", made.constant(0), count, made.constant(1))
    ir.convenience.replace_all_uses_with(rows, every)
    made.place_first()
    logits = next(output for output in graph.outputs if output.name == "logits")
    logits.name = "logits_of_rows"
    shape = made("Concat", made("Shape", ids), made.constant([vocab]), axis=0)
    shaped = made("Reshape", logits, shape)
    made.place_last()
    shaped.name, shaped.type = "logits", logits.type
    shaped.shape = ir.Shape(["batch_size", "sequence_length", vocab])
    graph.outputs[:] = [shaped, *(output for output in graph.outputs if output is not logits)]


def _name_axes(graph: ir.Graph) -> None:
    """Past and present get sizes of their own: they are not one buffer everywhere."""
    for ports, axis in ((graph.inputs, "past_sequence_length"), (graph.outputs, "total_sequence_length")):
        for port in ports:
            if (port.name or "").startswith(("past_key_values.", "present.")):
                assert port.shape is not None
                port.shape = ir.Shape(["batch_size", port.shape[1], axis, port.shape[3]])


def _moved(tensor: ir.ExternalTensor, weights: str) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        weights, tensor.offset, tensor.length, tensor.dtype,
        shape=tensor.shape, name=tensor.name, base_dir=Path(tensor.base_dir),
    )  # fmt: skip


def _port(name: str, shape: list[str], port: ir.Value | None = None) -> ir.Value:
    port = ir.Value(name=name) if port is None else port
    port.type, port.shape = ir.TensorType(ir.DataType.INT64), ir.Shape(shape)
    return port


class _Maker:
    """Makes nodes and constants, and puts them before or behind all others at once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._nodes: list[ir.Node] = []

    def __call__(self, kind: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        number = len(self._graph) + len(self._nodes)
        value = ir.Value(name=f"masked_{kind}_{number}")
        self._nodes.append(ir.node(kind, inputs, attributes, outputs=[value], name=value.name))
        return value

    def constant(self, content: object, dtype: type = np.int64) -> ir.Value:
        name = f"masked_constant_{len(self._graph.initializers)}"
        value = ir.Value(name=name, const_value=ir.tensor(np.array(content, dtype), name=name))
        self._graph.register_initializer(value)
        return value

    def place_first(self) -> None:
        self._graph.insert_before(self._graph[0], self._nodes)
        self._nodes = []

    def place_last(self) -> None:
        self._graph.extend(self._nodes)
        self._nodes = []
