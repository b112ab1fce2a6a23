"""An ONNX model of one node, as bytes: enough to ask a kernel a question.

The onnx package is no dependency of the runtime, and protocol buffers are simple: a message is a row of
fields, a field its number and kind followed by its value (protobuf.dev/programming-guides/encoding). The
numbers of the fields are those of onnx.proto.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

VARINT, BYTES, FIXED32 = 0, 2, 5
IR_VERSION, OPSET = 10, 20
FLOAT, INT32, INT64, FLOAT16 = 1, 6, 7, 10
"""Element types, as TensorProto numbers them."""


@dataclass(frozen=True)
class Port:
    """An input or output: element type, and number of axes, all of any size."""

    name: str
    dtype: int
    axes: int


def sketch(
    operator: str,
    inputs: Sequence[Port | None],
    outputs: Sequence[Port],
    domain: str = "",
    attributes: Mapping[str, int | float] | None = None,
) -> bytes:
    """A model that is one operator. None stands for an optional input that is not there."""
    node = b"".join(
        [
            *(_text(1, port.name if port else "") for port in inputs),
            *(_text(2, port.name) for port in outputs),
            _text(4, operator),
            *(_bytes(5, _attribute(name, value)) for name, value in (attributes or {}).items()),
            _text(7, domain),
        ]
    )
    graph = b"".join(
        [
            _bytes(1, node),
            _text(2, operator),
            *(_bytes(11, _value(port)) for port in inputs if port),
            *(_bytes(12, _value(port)) for port in outputs),
        ]
    )
    opsets = [("", OPSET)] + [(domain, 1)] * bool(domain)
    return b"".join(
        [
            _varint(1, IR_VERSION),
            *(_bytes(8, _text(1, name) + _varint(2, version)) for name, version in opsets),
            _bytes(7, graph),
        ]
    )


def _attribute(name: str, value: int | float) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _varint(3, value) + _varint(20, 2)
    return _text(1, name) + _key(2, FIXED32) + struct.pack("<f", value) + _varint(20, 1)


def _value(port: Port) -> bytes:
    shape = b"".join(_bytes(1, _text(2, f"{port.name}{axis}")) for axis in range(port.axes))
    return _text(1, port.name) + _bytes(2, _bytes(1, _varint(1, port.dtype) + _bytes(2, shape)))


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, BYTES) + _number(len(value)) + value


def _varint(field: int, value: int) -> bytes:
    return _key(field, VARINT) + _number(value)


def _key(field: int, kind: int) -> bytes:
    return _number(field << 3 | kind)


def _number(value: int) -> bytes:
    """Seven bits to a byte, the lowest first; negative ones as their two's complement in 64 bits."""
    value &= (1 << 64) - 1
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])
