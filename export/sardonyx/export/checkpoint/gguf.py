"""GGUF, the file format of llama.cpp: one file with weights, configuration and tokenizer.

What each architecture calls its parts is a table in `gguf_architectures.py`. Knows nothing about graphs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sardonyx.export.checkpoint import LazyTensor
from sardonyx.export.checkpoint.gguf_architectures import ARCHITECTURES, Architecture
from sardonyx.export.checkpoint.gguf_config import ROPE_TENSORS, read_config
from sardonyx.export.checkpoint.gguf_header import MAGIC, Metadata, read_header
from sardonyx.export.checkpoint.gguf_tensors import stored_tensors
from sardonyx.export.checkpoint.gguf_tokenizer import read_tokenizer
from sardonyx.export.checkpoint.layouts import MisfitError, canonical, has_place
from sardonyx.models.config import ConfigError
from sardonyx.runtime.errors import SourceError, UnknownArchitecture
from sardonyx.runtime.huggingface.tokenizer_files import TokenizerFiles


@dataclass(frozen=True)
class GGUFCheckpoint:
    """A GGUF file as a Checkpoint."""

    path: Path
    metadata: Metadata
    config: Mapping[str, Any]
    tensors: Mapping[str, LazyTensor]
    known_as: str | None = None

    @property
    def name(self) -> str:
        return self.known_as or self.metadata.get("general.name", str) or self.path.stem

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
        readable = ", ".join(sorted(name for name in ARCHITECTURES if " " not in name))
        raise UnknownArchitecture(
            f"{path}: GGUF architecture {prefix!r} is not known here; readable: {readable}"
        )
    architecture = _architecture(metadata, prefix)
    stored = stored_tensors(path, header.tensors)
    config = read_config(metadata, f"{prefix}.", architecture, stored)
    weights = {name: tensor for name, tensor in stored.items() if name not in ROPE_TENSORS}
    for name in weights:
        if not has_place(name, architecture.layout):
            raise SourceError(f"{path}: tensor {name} has no place in a {architecture.model_type} model")
    try:
        tensors = canonical(weights, architecture.layout, config)
    except (ConfigError, MisfitError) as error:
        raise SourceError(f"{path}: {error}") from None
    return GGUFCheckpoint(path, metadata, config, tensors)


def _architecture(metadata: Metadata, prefix: str) -> Architecture:
    """llama.cpp calls a network with experts as it calls the same without, where one came after the other."""
    experts = metadata.get(f"{prefix}.expert_count", int)
    return ARCHITECTURES.get(f"{prefix} with experts" if experts else prefix, ARCHITECTURES[prefix])
