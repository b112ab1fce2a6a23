"""The external data file of an artifact: tensors appended one after another as they are made.

Nothing is held back: a tensor is written chunk by chunk and only its place is remembered, so that an export
needs memory for one chunk and not for one model. It knows nothing of graphs beyond how ONNX points at
external data.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

ALIGNMENT = 4096
"""Bytes. onnxruntime maps external tensors straight from the file when they start on a page."""

Chunks = Iterable[NDArray[Any]]


class WeightFile:
    """Append-only writer of `folder / name`; a context manager that closes the file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._file = (folder / name).open("wb")

    def __enter__(self) -> "WeightFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._file.close()

    def append(
        self, name: str, dtype: ir.DataType, shape: Sequence[int], chunks: Chunks
    ) -> ir.ExternalTensor:
        """Write one tensor, given as consecutive pieces of its C-order bytes. Raises OSError."""
        offset = -(-self._file.tell() // ALIGNMENT) * ALIGNMENT
        self._file.truncate(offset)
        self._file.seek(offset)
        for chunk in chunks:
            self._file.write(np.ascontiguousarray(chunk).data)
        tensor = self._tensor(name, dtype, shape, offset, self._file.tell() - offset)
        expected = -(-tensor.size * dtype.bitwidth // 8)
        if tensor.length != expected:
            raise AssertionError(
                f"{name}: {tensor.length} bytes written for {expected} of {dtype} {list(shape)}"
            )
        return tensor

    def holds(self, tensor: ir.TensorProtocol) -> bool:
        """Whether a tensor lies in this file."""
        return isinstance(tensor, ir.ExternalTensor) and Path(tensor.path) == self._folder / self._name

    def alias(self, name: str, tensor: ir.ExternalTensor, shape: Sequence[int]) -> ir.ExternalTensor:
        """The same bytes under another name and shape: stored once, read as either."""
        assert tensor.offset is not None
        assert tensor.length is not None
        return self._tensor(name, tensor.dtype, shape, tensor.offset, tensor.length)

    def _tensor(
        self, name: str, dtype: ir.DataType, shape: Sequence[int], offset: int, length: int
    ) -> ir.ExternalTensor:
        return ir.ExternalTensor(
            self._name, offset, length, dtype, shape=ir.Shape(shape), name=name, base_dir=self._folder
        )
