"""One .safetensors file: where its tensors are. Knows the layout, and no model.

The layout is eight bytes of length, a JSON header of that length, and one gapless buffer
(https://github.com/huggingface/safetensors#format). The library of that name maps the file, which would count
as memory, and cannot read a row at a time into a bound; so the header is read, and disbelieved, here.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from sardonyx.export.checkpoint import Float32
from sardonyx.export.checkpoint.stored import Bytes, StoredTensor
from sardonyx.runtime.errors import SourceError

_MAX_HEADER = 100_000_000  # the library's own limit
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]*$")]


class Entry(msgspec.Struct, frozen=True):
    """A tensor as the header lists it; offsets are from the start of the buffer."""

    dtype: _Name
    shape: tuple[_Count, ...]
    data_offsets: tuple[_Count, _Count]


def _float32(stored: Bytes) -> Float32:
    return stored.view("<f4")


def _float16(stored: Bytes) -> Float32:
    return stored.view("<f2").astype(np.float32)


def _bfloat16(stored: Bytes) -> Float32:
    return (stored.view("<u2").astype(np.uint32) << 16).view(np.float32)


_READABLE: Mapping[str, tuple[str, int, Callable[[Bytes], Float32]]] = {
    "F32": ("float32", 4, _float32),
    "F16": ("float16", 2, _float16),
    "BF16": ("bfloat16", 2, _bfloat16),
}


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name. Raises SourceError when the header does not fit the file or itself."""
    header, start = _read_header(path)
    _check_places(path, header, start)
    return {name: _stored(path, name, entry, start) for name, entry in header.items()}


def _stored(path: Path, name: str, entry: Entry, start: int) -> StoredTensor:
    if entry.dtype not in _READABLE:
        raise SourceError(
            f"{path}: tensor {name} is stored as {entry.dtype}; readable are {', '.join(_READABLE)}"
        )
    if not entry.shape:
        raise SourceError(f"{path}: tensor {name} is a single number, which no model here has as a weight")
    dtype, size, decode = _READABLE[entry.dtype]
    begin, end = entry.data_offsets
    if end - begin != math.prod(entry.shape) * size:
        shape = "x".join(map(str, entry.shape))
        raise SourceError(
            f"{path}: tensor {name} of shape {shape} and type {entry.dtype} cannot take {end - begin} bytes; "
            "the file is damaged"
        )
    return StoredTensor(
        path, name, dtype, entry.shape, start + begin, math.prod(entry.shape[1:]) * size, decode
    )


def _read_header(path: Path) -> tuple[dict[str, Entry], int]:
    """The entries, and where the buffer begins."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            what = (
                "the file is empty"
                if size == 0
                else f"its header ends at byte {8 + length}, the file has {size}"
            )
            raise SourceError(f"{path}: cut short, or no .safetensors file: {what}; download it again")
        if length > _MAX_HEADER:
            raise SourceError(f"{path}: a header of {length} bytes is more than the format allows")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_unique)
        if isinstance(header, dict):
            header.pop("__metadata__", None)
        return msgspec.convert(header, dict[_Name, Entry]), 8 + length
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise SourceError(f"{path}: the header is not that of a .safetensors file ({error})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} is listed twice")
    return entries


def _check_places(path: Path, header: Mapping[str, Entry], start: int) -> None:
    """The tensors follow each other without gap or overlap from the start of the buffer to the end of the
    file.
    """
    size, expected = path.stat().st_size, start
    for name, entry in sorted(header.items(), key=lambda item: item[1].data_offsets):
        begin, end = (start + offset for offset in entry.data_offsets)
        if end > size:
            raise SourceError(
                f"{path}: cut short: tensor {name} ends at byte {end}, the file has {size}; download it again"
            )
        if begin != expected or end < begin:
            raise SourceError(f"{path}: tensor {name} overlaps another or leaves a gap; the file is damaged")
        expected = end
    if expected != size:
        raise SourceError(
            f"{path}: {size - expected} bytes at its end belong to no tensor; the file is damaged"
        )
