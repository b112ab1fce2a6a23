"""A computed prefix as a file: tokens and their states in the safetensors format, mapped when they are read.

The file says of which artifact it is, by the hashes of graph, weights and tokenizer, and holds the digest of
all that is in it. It appears whole or not at all. It knows arrays and files, and not where states come from.

The format: the length of a JSON header as 8 bytes; the header with place, type and shape of each tensor, and
with texts under `__metadata__`; the tensors.
"""

import hashlib
import os
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.errors import ArtifactError, OutputError, RequestError
from sardonyx.runtime.manifest import MODEL_NAME, TOKENIZER_NAME, WEIGHTS_NAME, Manifest

FORMAT = "sardonyx prefix 1"
LONGEST_HEADER = 1 << 24
TYPES = {"float32": "F32", "float16": "F16", "int8": "I8", "uint8": "U8", "int64": "I64"}
TOKENS = "tokens"


@dataclass(frozen=True)
class SavedPrefix:
    """The tokens of a prefix, their states in the manifest's order, `[heads, tokens, width]` each, and the
    prompt that they are the beginning of.
    """

    prompt: Any
    tokens: Sequence[int]
    states: Sequence[NDArray[Any]]


def write(path: Path, manifest: Manifest, prefix: SavedPrefix) -> None:
    """Write a prefix of this artifact. What is at the place is replaced. Raises OutputError."""
    tensors = {TOKENS: np.array(prefix.tokens, np.int64)}
    tensors |= {s.input: state for s, state in zip(manifest.states, prefix.states, strict=True)}
    about = {
        "format": FORMAT,
        "name": manifest.name,
        "recipe": manifest.recipe,
        "artifact": fingerprint(manifest),
        "prompt": msgspec.json.encode(prefix.prompt).decode(),
    }
    data = [np.ascontiguousarray(tensors[name]) for name, _ in _layout(manifest, len(prefix.tokens))]
    about["sha256"] = _digest(about, data)
    header = msgspec.json.encode({"__metadata__": about, **dict(_layout(manifest, len(prefix.tokens)))})
    header += b" " * (-len(header) % 8)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            with partial.open("xb") as file:
                file.write(struct.pack("<Q", len(header)) + header)
                for tensor in data:
                    file.write(tensor.data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None


def read(path: Path, manifest: Manifest) -> SavedPrefix:
    """Read a prefix of this artifact; its states are mapped. Raises ArtifactError when it is of another one,
    or is not what was written.
    """
    data, header = _opened(path)
    about = header.pop("__metadata__", None)
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ArtifactError(
            f"{path}: not a prefix that this version saved; make one with: sardonyx cache pack"
        )
    if about.get("artifact") != fingerprint(manifest):
        of = f"{about.get('name')} ({about.get('recipe')})"
        raise ArtifactError(
            f"{path}: saved with {of}, and of no use to {manifest.name} ({manifest.recipe}) as it is here; "
            "pack it again with this model"
        )
    damaged = ArtifactError(f"{path}: altered since it was written; pack it again")
    try:
        (count,) = header[TOKENS]["shape"]
        layout = dict(_layout(manifest, count)) if 0 < count <= manifest.context_length else None
    except (KeyError, TypeError, ValueError):
        raise damaged from None
    if header != layout:
        raise damaged
    size = max(place["data_offsets"][1] for place in layout.values())
    if len(data) != size:
        raise ArtifactError(f"{path}: {len(data)} bytes of states, {size} were written; pack it again")
    if about.pop("sha256", None) != _digest(about, [data]):
        raise damaged
    tensors = {name: _tensor(data, place) for name, place in layout.items()}
    states = [tensors[state.input] for state in manifest.states]
    return SavedPrefix(msgspec.json.decode(about["prompt"]), tensors[TOKENS].tolist(), states)


def fingerprint(manifest: Manifest) -> str:
    """What makes states of one artifact useless to another: weights, graph, tokens, and how states lie.

    Raises RequestError for a graph without hashes, which could not be told from another.
    """
    if MODEL_NAME not in manifest.files:
        raise RequestError(f"{manifest.name} has no hashes by which a file would know it: export it first")
    files = {name: manifest.files.get(name) for name in (MODEL_NAME, WEIGHTS_NAME, TOKENIZER_NAME)}
    known = {
        "files": files,
        "source": [manifest.name, manifest.source],
        "states": manifest.states,
        "context": manifest.context_length,
    }
    return hashlib.sha256(msgspec.json.encode(known, order="sorted")).hexdigest()


def _opened(path: Path) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """The mapped bytes behind the header, and the header."""
    foreign = ArtifactError(f"{path}: not a saved prefix; make one with: sardonyx cache pack")
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            header = file.read(min(length, LONGEST_HEADER + 1))
            if not 0 < length <= LONGEST_HEADER or len(header) < length:
                raise foreign
            decoded = msgspec.json.decode(header, type=dict[str, Any])
            data = np.memmap(file, np.uint8, "r")[8 + length :]
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; make one with: sardonyx cache pack") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise foreign from None
    return data, decoded


def _layout(manifest: Manifest, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Name and header entry of each tensor in the order of the file: the widest numbers first, so that all
    are aligned.
    """
    shapes = [(TOKENS, "int64", [count])]
    shapes += [(s.input, s.dtype, [s.shape[0], count, s.shape[1]]) for s in manifest.states]
    shapes.sort(key=lambda tensor: -np.dtype(tensor[1]).itemsize)
    layout, end = [], 0
    for name, dtype, shape in shapes:
        start, end = end, end + int(np.prod(shape)) * np.dtype(dtype).itemsize
        layout.append((name, {"dtype": TYPES[dtype], "shape": shape, "data_offsets": [start, end]}))
    return layout


def _tensor(data: NDArray[np.uint8], place: Mapping[str, Any]) -> NDArray[Any]:
    dtype = next(numpy for numpy, stored in TYPES.items() if stored == place["dtype"])
    start, end = place["data_offsets"]
    return data[start:end].view(dtype).reshape(place["shape"])


def _digest(about: Mapping[str, Any], data: Sequence[NDArray[Any]]) -> str:
    digest = hashlib.sha256(msgspec.json.encode(about, order="sorted"))
    for tensor in data:
        digest.update(tensor.data)
    return digest.hexdigest()
