"""Hugging Face's config.json fields from GGUF metadata, by the table of an architecture.

Every key of the architecture is used, or known to change nothing, or refused. Reads no weights but the rotary
scaling, which llama.cpp stores as a tensor.
"""

from collections.abc import Mapping
from typing import Any

from sardonyx.export.checkpoint.gguf_architectures import DESCRIPTIVE, Architecture
from sardonyx.export.checkpoint.gguf_header import Metadata
from sardonyx.export.checkpoint.gguf_rope import KEYS as ROPE_KEYS
from sardonyx.export.checkpoint.gguf_rope import llama3_scaling, rope_scaling
from sardonyx.export.checkpoint.gguf_tokenizer import eos_ids
from sardonyx.export.checkpoint.stored import StoredTensor
from sardonyx.runtime.errors import SourceError

ROPE_DIVISORS = "rope_freqs.weight"
_HEAD_WIDTHS = ("rope.dimension_count", "attention.value_length")


def read_config(
    metadata: Metadata, prefix: str, architecture: Architecture, stored: Mapping[str, StoredTensor]
) -> dict[str, Any]:
    """The fields of config.json; `stored` are the file's tensors by its own names. Raises SourceError."""
    _check_understood(metadata, prefix, architecture)
    config = _sizes(metadata, prefix, architecture)
    for key in _HEAD_WIDTHS:
        if metadata.get(prefix + key, int) not in (None, config["head_dim"]):
            width = metadata.values[prefix + key]
            raise SourceError(
                f"{metadata.path}: metadata {prefix}{key} is {width}, but heads are {config['head_dim']} wide"
            )
    if "token_embd.weight" not in stored:
        raise SourceError(f"{metadata.path}: there is no token_embd.weight; this is not a language model")
    return {
        "model_type": architecture.model_type,
        **architecture.fixed,
        **config,
        "vocab_size": stored["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in stored,
        "attention_bias": "blk.0.attn_q.bias" in stored,
        "mlp_bias": "blk.0.ffn_up.bias" in stored,
        "rope_scaling": _scaling(metadata, prefix, config, stored.get(ROPE_DIVISORS)),
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id", int),
        "eos_token_id": list(eos_ids(metadata)),
    }


def _check_understood(metadata: Metadata, prefix: str, architecture: Architecture) -> None:
    used = {key for key, _ in [*architecture.required.values(), *architecture.optional.values()]}
    used |= ROPE_KEYS | DESCRIPTIVE | set(_HEAD_WIDTHS)
    for key, value in metadata.values.items():
        short = key.removeprefix(prefix)
        if short == key or short in used:
            continue
        if short not in architecture.neutral:
            raise SourceError(
                f"{metadata.path}: metadata {key} is not understood, and ignoring it might change the model"
            )
        if value != architecture.neutral[short]:
            only = architecture.neutral[short]
            raise SourceError(f"{metadata.path}: metadata {key} is {value!r:.60}; only {only} is supported")


def _sizes(metadata: Metadata, prefix: str, architecture: Architecture) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for field, (key, kind) in architecture.required.items():
        config[field] = metadata.require(prefix + key, kind)
    for field, (key, kind) in architecture.optional.items():
        config[field] = metadata.get(prefix + key, kind)
    for field, value in config.items():
        if value is not None and not 0 < value < float("inf"):
            raise SourceError(f"{metadata.path}: {field} is {value}; the file is damaged")
    config["num_key_value_heads"] = config["num_key_value_heads"] or config["num_attention_heads"]
    config["head_dim"] = config["head_dim"] or config["hidden_size"] // config["num_attention_heads"]
    config["rope_theta"] = config["rope_theta"] or 10000.0  # llama.cpp's default
    return config


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
        raise SourceError(f"{metadata.path}: {ROPE_DIVISORS} holds a rotary scaling that is not llama3's")
    return recovered
