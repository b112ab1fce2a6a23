"""The head of a GGUF file: its metadata and where its tensors are. Knows the layout, and no architecture.

The format is described at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` package's own
reader maps the file, trusts every count in it and takes about two seconds for a vocabulary of 49,000 tokens;
this one reads forward once and believes nothing that does not fit in the file.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from sardonyx.runtime.errors import SourceError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
_LEAST_FIELD_BYTES, _LEAST_TENSOR_BYTES = 13, 24  # an empty name and the smallest contents
_MAX_TEXT, _MAX_ARRAY = 1 << 26, 1 << 24  # far more than any vocabulary or chat template

Value = TypeVar("Value", str, int, float, bool, list)  # type: ignore[type-arg]


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the file lists it: `shape` is slowest axis first, `offset` from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int


@dataclass(frozen=True)
class Metadata:
    """The key-value pairs of a file, read with the type that the reader of a key expects."""

    path: Path
    values: Mapping[str, Any]

    def get(self, key: str, kind: type[Value]) -> Value | None:
        """The value of `key`, None when it is absent. Raises SourceError when it is not a `kind`."""
        value = self.values.get(key)
        if value is None or type(value) is kind:
            return value
        wanted = kind.__name__
        raise SourceError(f"{self.path}: metadata {key} should be of type {wanted}, not {_shown(value)}")

    def require(self, key: str, kind: type[Value]) -> Value:
        """The value of `key`. Raises SourceError when it is absent or not a `kind`."""
        value = self.get(key, kind)
        if value is None:
            raise SourceError(f"{self.path}: metadata {key} is missing")
        return value


@dataclass(frozen=True)
class Header:
    metadata: Metadata
    tensors: tuple[TensorEntry, ...]


def read_header(path: Path) -> Header:
    """Read everything before the tensor data. Raises SourceError when the file is not a sound GGUF of version
    2 or 3.
    """
    with path.open("rb") as file:
        scan = _Scan(path, file, path.stat().st_size)
        _check_version(scan)
        tensor_count, field_count = scan.unpack("QQ")
        scan.expect(tensor_count * _LEAST_TENSOR_BYTES + field_count * _LEAST_FIELD_BYTES)
        values: dict[str, Any] = {}
        for _ in range(field_count):
            key = scan.name()
            if key in values:
                raise SourceError(f"{path}: metadata {key} is given twice")
            (kind,) = scan.unpack("I")
            values[key] = scan.value(kind, key)
        metadata = Metadata(path, values)
        entries = [_entry(scan) for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", int) or 32
        if alignment < 1 or alignment & (alignment - 1):
            raise SourceError(f"{path}: tensors cannot be aligned to {alignment} bytes; the file is damaged")
        start = -(-file.tell() // alignment) * alignment
    return Header(metadata, tuple(TensorEntry(e.name, e.shape, e.type_id, e.offset + start) for e in entries))


def _check_version(scan: "_Scan") -> None:
    if scan.size == 0:
        raise SourceError(f"{scan.path}: the file is empty; download it again")
    if scan.take(4) != MAGIC:
        raise SourceError(f"{scan.path}: not a GGUF file (it does not begin with GGUF)")
    (version,) = scan.unpack("I")
    if version & 0xFFFF == 0 and version:
        raise SourceError(f"{scan.path}: a big-endian GGUF file; convert it to little-endian first")
    if version not in _VERSIONS:
        raise SourceError(f"{scan.path}: GGUF version {version} is not supported (2 and 3 are)")


def _entry(scan: "_Scan") -> TensorEntry:
    name = scan.name()
    (dimensions,) = scan.unpack("I")
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise SourceError(f"{scan.path}: tensor {name} has {dimensions} dimensions; the file is damaged")
    *shape, type_id, offset = scan.unpack(f"{dimensions}QIQ")
    return TensorEntry(name, tuple(reversed(shape)), type_id, offset)


class _Scan:
    """Reads a file forward; whatever would reach past its end is an error before any memory is taken."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.size = path, size
        self._file, self._left = file, size

    def expect(self, count: int) -> None:
        if count > self._left:
            raise SourceError(
                f"{self.path}: cut short: its header goes on for {count} bytes at byte "
                f"{self.size - self._left}, the file has {self.size}; download it again"
            )

    def take(self, count: int) -> bytes:
        self.expect(count)
        self._left -= count
        return self._file.read(count)

    def unpack(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def text(self) -> str:
        (length,) = _LENGTH.unpack(self.take(8))
        self._check_length(length, _MAX_TEXT)
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise SourceError(f"{self.path}: a text in the header is not UTF-8 ({error.reason})") from None

    def name(self) -> str:
        name = self.text()
        if not name.isprintable():
            raise SourceError(f"{self.path}: the name {name!r:.60} is not one; the file is damaged")
        return name

    def _check_length(self, length: int, limit: int) -> None:
        self.expect(length)  # of at least one byte each
        if length > limit:
            raise SourceError(f"{self.path}: a header value of length {length}; the file is damaged")

    def value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array(key)
        if kind in _SCALARS:
            (scalar,) = self.unpack(_SCALARS[kind])
            # What was written as 1e-5 was stored as a 32-bit float: give back its shortest decimal.
            return float(str(np.float32(scalar))) if _SCALARS[kind] == "f" else scalar
        raise SourceError(f"{self.path}: metadata {key} has the unknown type {kind}")

    def _array(self, key: str) -> list[Any]:
        kind, length = self.unpack("IQ")
        self._check_length(length, _MAX_ARRAY)
        if kind == _STRING:
            return [self.text() for _ in range(length)]
        if kind not in _SCALARS:
            raise SourceError(f"{self.path}: metadata {key} is an array of the unsupported type {kind}")
        layout = np.dtype("<" + _SCALARS[kind])
        values: list[Any] = np.frombuffer(self.take(length * layout.itemsize), layout).tolist()
        return values


_LENGTH = struct.Struct("<Q")


def _shown(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else repr(value)[:40]
