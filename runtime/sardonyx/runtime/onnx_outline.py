"""The outline of an ONNX file: nodes, inputs, outputs, and where tensors lie. Never a weight.

The runtime does without the onnx package, but has to look into graphs that it did not write. The file is
mapped and its protocol buffers are walked over: a tensor's bytes are stepped across, not read. Field numbers
are those of onnx.proto3.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sardonyx.runtime.errors import ArtifactError

MODEL_PRODUCER, MODEL_VERSION, MODEL_GRAPH = 2, 3, 7
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT, GRAPH_VALUE = 1, 5, 11, 12, 13
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_KIND, NODE_ATTRIBUTE = 1, 2, 3, 4, 5
ATTRIBUTE_NAME, ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_GRAPH = 1, 2, 3, 6
TENSOR_TYPE, TENSOR_NAME, TENSOR_EXTERNAL = 2, 8, 13
ENTRY_KEY, ENTRY_VALUE = 1, 2
VALUE_NAME, VALUE_TYPE, TYPE_TENSOR, TYPE_ELEMENT, TYPE_SHAPE, SHAPE_DIM, DIM_SIZE = 1, 2, 1, 1, 2, 1, 1

TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    16: "bfloat16",
}
"""Names of element types, of those that matter here."""


@dataclass(frozen=True)
class Node:
    """One operator. `inputs` that are left out are empty; of the attributes only numbers are kept."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, float]
    name: str = ""

    def input(self, index: int) -> str:
        """Its name, empty if it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True)
class Port:
    """An input or output of the graph; sizes that are not fixed are 0."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Outline:
    """What a graph consists of, its branches and loop bodies included."""

    nodes: list[Node] = field(default_factory=list)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)
    """Element types of what is declared: initializers, inputs, values between nodes."""
    files: dict[str, int] = field(default_factory=dict)
    """Files beside it that hold weights, and how many bytes each must have at least."""
    producer: str = ""
    """The program that wrote it, as it calls itself."""


class _DamagedError(Exception):
    """These bytes are no protocol buffer."""


def read_outline(path: Path) -> Outline:
    """Raises ArtifactError when a file is missing, cannot be read or is no ONNX model."""
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        model = dict(_fields(data))
        producer = (_text(model.get(part, data[:0])) for part in (MODEL_PRODUCER, MODEL_VERSION))
        outline = Outline(producer=" ".join(producer).strip())
        _read_graph(_bytes(model.get(MODEL_GRAPH, 0)), outline, outermost=True)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; get the folder again, whole") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, _DamagedError):  # mmap refuses an empty file with ValueError
        raise ArtifactError(f"{path}: not an ONNX model, or cut short; get it again") from None
    return outline


def _read_graph(graph: memoryview, outline: Outline, *, outermost: bool) -> None:
    for number, value in _fields(graph):
        if number == GRAPH_NODE:
            outline.nodes.append(_node(_bytes(value), outline))
        elif number == GRAPH_INITIALIZER:
            _read_tensor(_bytes(value), outline)
        elif number in (GRAPH_INPUT, GRAPH_OUTPUT, GRAPH_VALUE):
            port = _port(_bytes(value))
            outline.types[port.name] = port.dtype
            if outermost and number == GRAPH_INPUT:
                outline.inputs.append(port)
            elif outermost and number == GRAPH_OUTPUT:
                outline.outputs.append(port)


def _node(data: memoryview, outline: Outline) -> Node:
    kind, name, inputs, outputs, attributes = "", "", [], [], {}
    for number, value in _fields(data):
        if number == NODE_INPUT:
            inputs.append(_text(value))
        elif number == NODE_OUTPUT:
            outputs.append(_text(value))
        elif number == NODE_NAME:
            name = _text(value)
        elif number == NODE_KIND:
            kind = _text(value)
        elif number == NODE_ATTRIBUTE:
            key, amount = "", None
            for part, content in _fields(_bytes(value)):
                if part == ATTRIBUTE_NAME:
                    key = _text(content)
                elif part == ATTRIBUTE_INT and isinstance(content, int):
                    amount = content - (content >> 63 << 64)  # two's complement
                elif part == ATTRIBUTE_FLOAT and not isinstance(content, int):
                    (amount,) = struct.unpack("<f", content)
                elif part == ATTRIBUTE_GRAPH:
                    _read_graph(_bytes(content), outline, outermost=False)
            if amount is not None:
                attributes[key] = amount
    return Node(kind, tuple(inputs), tuple(outputs), attributes, name)


def _read_tensor(data: memoryview, outline: Outline) -> None:
    name, dtype, external = "", "", {}
    for number, value in _fields(data):
        if number == TENSOR_NAME:
            name = _text(value)
        elif number == TENSOR_TYPE:
            dtype = TYPES.get(value, "other") if isinstance(value, int) else "other"
        elif number == TENSOR_EXTERNAL:
            entry = {part: _text(content) for part, content in _fields(_bytes(value))}
            external[entry.get(ENTRY_KEY, "")] = entry.get(ENTRY_VALUE, "")
    outline.types[name] = dtype
    if location := external.get("location"):
        end = int(external.get("offset") or 0) + int(external.get("length") or 0)
        outline.files[location] = max(end, outline.files.get(location, 0))


def _port(data: memoryview) -> Port:
    name, dtype, shape = "", "other", []
    for number, value in _fields(data):
        if number == VALUE_NAME:
            name = _text(value)
        elif number == VALUE_TYPE:
            for part, content in _within(_bytes(value), TYPE_TENSOR):
                if part == TYPE_ELEMENT and isinstance(content, int):
                    dtype = TYPES.get(content, "other")
                elif part == TYPE_SHAPE:
                    shape = [_size(_bytes(d)) for n, d in _fields(_bytes(content)) if n == SHAPE_DIM]
    return Port(name, dtype, tuple(shape))


def _size(dim: memoryview) -> int:
    return next((value for n, value in _fields(dim) if n == DIM_SIZE and isinstance(value, int)), 0)


def _within(data: memoryview, number: int) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of every message in that field."""
    for found, value in _fields(data):
        if found == number:
            yield from _fields(_bytes(value))


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: an integer, or bytes that are not copied."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise _DamagedError
        if at + size > end:
            raise _DamagedError
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise _DamagedError


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _DamagedError
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode("utf-8", "replace")
