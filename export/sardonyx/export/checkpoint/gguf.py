"""GGUF, the file format of llama.cpp: one file with weights, configuration and tokenizer.

What each architecture calls its parts is a table in `gguf_architectures.py`. Knows nothing about graphs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sardonyx.export.checkpoint import LazyTensor
from sardonyx.export.checkpoint.gguf_architectures import ARCHITECTURES, Architecture
from sardonyx.export.checkpoint.gguf_config import ROPE_DIVISORS, read_config
from sardonyx.export.checkpoint.gguf_header import MAGIC, Metadata, read_header
from sardonyx.export.checkpoint.gguf_tensors import stored_tensors
from sardonyx.export.checkpoint.gguf_tokenizer import read_tokenizer
from sardonyx.export.checkpoint.stored import Deinterleaved, StoredTensor
from sardonyx.runtime.errors import SourceError, UnknownArchitecture
from sardonyx.runtime.huggingface.tokenizer_files import TokenizerFiles

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")


@dataclass(frozen=True)
class GGUFCheckpoint:
    """A GGUF file as a Checkpoint."""

    path: Path
    metadata: Metadata
    config: Mapping[str, Any]
    tensors: Mapping[str, LazyTensor]

    @property
    def name(self) -> str:
        return self.metadata.get("general.name", str) or self.path.stem

    @property
    def format(self) -> str:
        return "gguf"

    @property
    def generation(self) -> Mapping[str, Any]:
        return {}

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def names(self) -> frozenset[str]:
        return frozenset(self.tensors)

    def tensor(self, name: str) -> LazyTensor:
        return self.tensors[name]

    def tokenizer(self) -> TokenizerFiles:
        return read_tokenizer(self.metadata)


def sniff(path: Path) -> bool:
    """Whether this is a GGUF file, or is named as one: then `read` can say what is wrong with it."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC or path.suffix == ".gguf"


def read(path: Path) -> GGUFCheckpoint:
    """Open a GGUF file: its header is read and checked against the file, no tensor data is.

    Raises SourceError for a file that is damaged or says something that is not understood,
    UnknownArchitecture for an architecture without a table.
    """
    header = read_header(path)
    metadata = header.metadata
    if (metadata.get("split.count", int) or 1) > 1:
        raise SourceError(f"{path}: one part of a split model; join the parts with llama-gguf-split --merge")
    prefix = metadata.require("general.architecture", str)
    if prefix not in ARCHITECTURES:
        readable = ", ".join(sorted(ARCHITECTURES))
        raise UnknownArchitecture(
            f"{path}: GGUF architecture {prefix!r} is not known here; readable: {readable}"
        )
    architecture = ARCHITECTURES[prefix]
    stored = stored_tensors(path, header.tensors)
    config = read_config(metadata, f"{prefix}.", architecture, stored)
    weights = (tensor for name, tensor in stored.items() if name != ROPE_DIVISORS)
    tensors = dict(_canonical(tensor, architecture, config) for tensor in weights)
    return GGUFCheckpoint(path, metadata, config, tensors)


def _canonical(
    tensor: StoredTensor, architecture: Architecture, config: Mapping[str, Any]
) -> tuple[str, LazyTensor]:
    """The tensor's Hugging Face name, and its rows in Hugging Face's order."""
    block = _BLOCK.fullmatch(tensor.name)
    stem, _, suffix = (block[2] if block else tensor.name).rpartition(".")
    known = architecture.block_tensors if block else architecture.tensors
    if stem not in known or suffix not in ("weight", "bias"):
        raise SourceError(
            f"{tensor.path}: tensor {tensor.name} has no place in a {architecture.model_type} model"
        )
    name = f"{known[stem]}.{suffix}"
    if block is None:
        return name, tensor
    heads = config[architecture.interleaved[stem]] if stem in architecture.interleaved else None
    if heads is not None and (tensor.shape[0] != heads * config["head_dim"] or config["head_dim"] % 2):
        rows, width = tensor.shape[0], config["head_dim"]
        raise SourceError(
            f"{tensor.path}: tensor {tensor.name} has {rows} rows, not {heads} heads of {width}"
        )
    return f"model.layers.{block[1]}.{name}", tensor if heads is None else Deinterleaved(tensor, heads)
