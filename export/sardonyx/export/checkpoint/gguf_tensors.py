"""The tensors of a GGUF file, checked and lazy, under the names that the file gives them.

Knows block formats through the `gguf` package, and no architecture.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

from sardonyx.export.checkpoint.gguf_header import TensorEntry
from sardonyx.export.checkpoint.stored import StoredTensor
from sardonyx.runtime.errors import MissingExtra, SourceError

READABLE = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "MXFP4")
_SPELLING = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def stored_tensors(path: Path, entries: tuple[TensorEntry, ...]) -> dict[str, StoredTensor]:
    """Every tensor of the file by name. Raises SourceError for one that is unreadable or cut off."""
    tensors: dict[str, StoredTensor] = {}
    for entry in entries:
        if entry.name in tensors:
            raise SourceError(f"{path}: tensor {entry.name} is listed twice")
        tensors[entry.name] = _stored(path, entry)
    _check_places(path, tensors)
    return tensors


def _stored(path: Path, entry: TensorEntry) -> StoredTensor:
    gguf = _gguf()
    try:
        kind = gguf.GGMLQuantizationType(entry.type_id)
    except ValueError:
        raise SourceError(f"{path}: tensor {entry.name} has the unknown type {entry.type_id}") from None
    if kind.name not in READABLE:
        readable = ", ".join(READABLE)
        raise SourceError(f"{path}: tensor {entry.name} is stored as {kind.name}; readable are {readable}")
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    width = entry.shape[-1] if len(entry.shape) > 1 else 1  # of what must be whole blocks
    if 0 in entry.shape or width % block:
        shape = "x".join(map(str, entry.shape))
        raise SourceError(
            f"{path}: tensor {entry.name} of shape {shape} cannot be {kind.name}; the file is damaged"
        )
    return StoredTensor(
        path=path,
        name=entry.name,
        dtype=_SPELLING.get(kind.name, kind.name.lower()),
        shape=entry.shape,
        offset=entry.offset,
        row_bytes=math.prod(entry.shape[1:]) // block * block_bytes,
        decode=partial(gguf.quants.dequantize, qtype=kind),
    )


def _check_places(path: Path, tensors: dict[str, StoredTensor]) -> None:
    size, previous = path.stat().st_size, None
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.offset):
        if tensor.end > size:
            raise SourceError(
                f"{path}: cut short: tensor {tensor.name} ends at byte {tensor.end}, the file has {size}; "
                "download it again"
            )
        if previous is not None and previous.end > tensor.offset:
            raise SourceError(
                f"{path}: tensors {previous.name} and {tensor.name} overlap; the file is damaged"
            )
        previous = tensor


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise MissingExtra("gguf", "export") from None
    return gguf
