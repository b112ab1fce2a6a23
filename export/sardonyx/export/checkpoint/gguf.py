"""GGUF, the file format of llama.cpp: one file with weights, configuration and tokenizer.

What each architecture calls its parts is a table in `gguf_architectures.py`. Knows nothing about graphs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sardonyx.export.checkpoint import LazyTensor, TokenizerFiles
from sardonyx.export.checkpoint.gguf_architectures import ARCHITECTURES, DESCRIPTIVE, Architecture
from sardonyx.export.checkpoint.gguf_header import MAGIC, Metadata, read_header
from sardonyx.export.checkpoint.gguf_rope import KEYS as ROPE_KEYS
from sardonyx.export.checkpoint.gguf_rope import llama3_scaling, rope_scaling
from sardonyx.export.checkpoint.gguf_tensors import stored_tensors
from sardonyx.export.checkpoint.gguf_tokenizer import eos_ids, read_tokenizer
from sardonyx.export.checkpoint.stored import Deinterleaved, StoredTensor
from sardonyx.runtime.errors import SourceError, UnknownArchitecture

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_ROPE_DIVISORS = "rope_freqs.weight"


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
    config = _config(metadata, f"{prefix}.", architecture, stored)
    tensors = {}
    for name, tensor in stored.items():
        if name != _ROPE_DIVISORS:
            tensors[_canonical(path, name, architecture)] = _in_order(path, tensor, architecture, config)
    return GGUFCheckpoint(path, metadata, config, tensors)


def _config(
    metadata: Metadata, prefix: str, architecture: Architecture, stored: Mapping[str, StoredTensor]
) -> dict[str, Any]:
    _check_understood(metadata, prefix, architecture)
    config: dict[str, Any] = {"model_type": architecture.model_type, **architecture.fixed}
    for field, (key, kind) in architecture.required.items():
        config[field] = metadata.require(prefix + key, kind)
    for field, (key, kind) in architecture.optional.items():
        config[field] = metadata.get(prefix + key, kind)
    for field in ("num_hidden_layers", "num_attention_heads", "hidden_size"):
        if config[field] < 1:
            raise SourceError(f"{metadata.path}: {field} is {config[field]}; the file is damaged")
    config["num_key_value_heads"] = config["num_key_value_heads"] or config["num_attention_heads"]
    config["head_dim"] = config["head_dim"] or config["hidden_size"] // config["num_attention_heads"]
    config["rope_theta"] = config["rope_theta"] or 10000.0  # llama.cpp's default
    _check_head_dim(metadata, prefix, config["head_dim"])
    if "token_embd.weight" not in stored:
        raise SourceError(f"{metadata.path}: there is no token_embd.weight; this is not a language model")
    config["vocab_size"] = stored["token_embd.weight"].shape[0]
    config["tie_word_embeddings"] = "output.weight" not in stored
    config["attention_bias"] = "blk.0.attn_q.bias" in stored
    config["mlp_bias"] = "blk.0.ffn_up.bias" in stored
    config["rope_scaling"] = _scaling(metadata, prefix, config, stored.get(_ROPE_DIVISORS))
    config["bos_token_id"] = metadata.get("tokenizer.ggml.bos_token_id", int)
    config["eos_token_id"] = list(eos_ids(metadata))
    return config


def _check_understood(metadata: Metadata, prefix: str, architecture: Architecture) -> None:
    """Every key of the architecture is used here or is known to change nothing."""
    used = {key for key, _ in [*architecture.required.values(), *architecture.optional.values()]}
    used |= ROPE_KEYS | DESCRIPTIVE | {"rope.dimension_count", "attention.value_length"}
    for key, value in metadata.values.items():
        short = key.removeprefix(prefix)
        if short == key or short in used:
            continue
        if short not in architecture.neutral:
            raise SourceError(
                f"{metadata.path}: metadata {key} is not understood; ignoring it might change the model"
            )
        if value != architecture.neutral[short]:
            raise SourceError(
                f"{metadata.path}: metadata {key} is {value}; only {architecture.neutral[short]} is supported"
            )


def _check_head_dim(metadata: Metadata, prefix: str, head_dim: int) -> None:
    for key in ("rope.dimension_count", "attention.value_length"):
        value = metadata.get(prefix + key, int)
        if value not in (None, head_dim):
            raise SourceError(
                f"{metadata.path}: metadata {prefix}{key} is {value}, but heads are {head_dim} wide"
            )


def _scaling(
    metadata: Metadata, prefix: str, config: Mapping[str, Any], divisors: StoredTensor | None
) -> dict[str, Any] | None:
    scaling = rope_scaling(metadata, prefix)
    if divisors is None:
        return scaling
    recovered = None
    if scaling is None and divisors.shape == (config["head_dim"] // 2,):
        factors = divisors.rows(0, divisors.shape[0])
        if (factors == 1).all():
            return None
        recovered = llama3_scaling(factors, config["rope_theta"])
    if recovered is None:
        raise SourceError(f"{metadata.path}: {_ROPE_DIVISORS} holds a rotary scaling that is not llama3's")
    return recovered


def _canonical(path: Path, name: str, architecture: Architecture) -> str:
    block = _BLOCK.fullmatch(name)
    stem, dot, suffix = (block[2] if block else name).rpartition(".")
    known = architecture.block_tensors if block else architecture.tensors
    if stem not in known or suffix not in ("weight", "bias"):
        raise SourceError(f"{path}: tensor {name} has no place in a {architecture.model_type} model")
    return (f"model.layers.{block[1]}." if block else "") + known[stem] + dot + suffix


def _in_order(
    path: Path, tensor: StoredTensor, architecture: Architecture, config: Mapping[str, Any]
) -> LazyTensor:
    block = _BLOCK.fullmatch(tensor.name)
    heads_field = architecture.interleaved.get(block[2].rpartition(".")[0]) if block else None
    if heads_field is None:
        return tensor
    if tensor.shape[0] != config[heads_field] * config["head_dim"] or config["head_dim"] % 2:
        raise SourceError(
            f"{path}: tensor {tensor.name} has {tensor.shape[0]} rows, "
            f"but {heads_field} is {config[heads_field]} and head_dim {config['head_dim']}"
        )
    return Deinterleaved(tensor, config[heads_field])
