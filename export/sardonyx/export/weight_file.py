"""The external data file of an artifact: tensors get places one after another, and bytes as they are made.

Nothing is held back: a tensor is written chunk by chunk and only its place is remembered, so that an export
needs memory for one chunk and not for one model. It knows nothing of graphs beyond how ONNX points at
external data.
"""

from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

PAGE = 4096
"""Bytes. Where tensors start that fill pages: onnxruntime maps them straight from the file."""

LINE = 64
"""Bytes. Where smaller tensors start, which would waste most of a page: on a line of the cache."""

SMALL = 1 << 16
"""Bytes below which a tensor is small."""

Chunks = Iterable[NDArray[Any]]


class WeightFile:
    """Writer of `folder / name`; a context manager that closes the file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._file = (folder / name).open("wb")
        self._end = 0

    def __enter__(self) -> "WeightFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._file.close()

    def place(self, name: str, dtype: ir.DataType, shape: Sequence[int]) -> ir.ExternalTensor:
        """Room for one tensor behind all others: `fill` it once."""
        length = -(-prod(shape) * dtype.bitwidth // 8)
        alignment = LINE if length < SMALL else PAGE
        offset = -(-self._end // alignment) * alignment
        self._end = offset + length
        return self._tensor(name, dtype, shape, offset, length)

    def fill(self, tensor: ir.ExternalTensor, chunks: Chunks) -> None:
        """Write a tensor's bytes, given as consecutive pieces in C order. Raises OSError."""
        assert tensor.offset is not None
        self._file.seek(tensor.offset)
        for chunk in chunks:
            self._file.write(np.ascontiguousarray(chunk).data)
        written = self._file.tell() - tensor.offset
        if written != tensor.length:
            shape = list(tensor.shape.numpy())
            raise AssertionError(
                f"{tensor.name}: {written} bytes written for {tensor.length} of {tensor.dtype} {shape}"
            )

    def holds(self, tensor: ir.TensorProtocol) -> bool:
        """Whether a tensor lies in this file."""
        return isinstance(tensor, ir.ExternalTensor) and Path(tensor.path) == self._folder / self._name

    def append(
        self, name: str, dtype: ir.DataType, shape: Sequence[int], chunks: Chunks
    ) -> ir.ExternalTensor:
        """`place` and `fill` at once."""
        tensor = self.place(name, dtype, shape)
        self.fill(tensor, chunks)
        return tensor

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
