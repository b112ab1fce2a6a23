"""Hugging Face's config.json fields from GGUF metadata, by the table of an architecture.

Every key of the architecture is used, or known to change nothing, or refused. Reads no weights but the rotary
scaling, which llama.cpp stores as a tensor.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sardonyx.export.checkpoint.gguf_architectures import DESCRIPTIVE, Architecture, Keys
from sardonyx.export.checkpoint.gguf_header import Metadata
from sardonyx.export.checkpoint.gguf_rope import KEYS as ROPE_KEYS
from sardonyx.export.checkpoint.gguf_rope import llama3_scaling, rope_scaling
from sardonyx.export.checkpoint.gguf_tokenizer import eos_ids
from sardonyx.export.checkpoint.stored import StoredTensor
from sardonyx.runtime.errors import SourceError

ROPE_DIVISORS = "rope_freqs.weight"
LONGROPE = {"long_factor": "rope_factors_long.weight", "short_factor": "rope_factors_short.weight"}
ROPE_TENSORS = frozenset({ROPE_DIVISORS, *LONGROPE.values()})

_SIZES: Keys = {
    "hidden_size": ("embedding_length", int),
    "intermediate_size": ("feed_forward_length", int),
    "num_hidden_layers": ("block_count", int),
    "num_attention_heads": ("attention.head_count", int),
    "max_position_embeddings": ("context_length", int),
}
_KEY_HEADS = "attention.head_count_kv"
_HEADS_AND_ROTARY: Keys = {
    "num_key_value_heads": (_KEY_HEADS, int),
    "head_dim": ("attention.key_length", int),
    "rope_theta": ("rope.freq_base", float),
}
_ROTATED, _VALUES = "rope.dimension_count", "attention.value_length"


def read_config(
    metadata: Metadata, prefix: str, architecture: Architecture, stored: Mapping[str, StoredTensor]
) -> dict[str, Any]:
    """The fields of config.json; `stored` are the file's tensors by its own names. Raises SourceError.

    Sizes are there under Llama's names too where the architecture has others for them.
    """
    _check_understood(metadata, prefix, architecture)
    if "token_embd.weight" not in stored:
        raise SourceError(f"{metadata.path}: there is no token_embd.weight; this is not a language model")
    config = {
        "model_type": architecture.model_type,
        **architecture.fixed,
        **_sizes(metadata, prefix, architecture),
        "vocab_size": stored["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in stored,
        **{field: name in stored for field, name in architecture.present.items()},
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id", int),
        "eos_token_id": list(eos_ids(metadata)),
    }
    config |= _rotated(metadata, prefix, architecture, config["head_dim"])
    config["rope_scaling"] = _scaling(metadata, prefix, config, stored)
    config |= architecture.implied(config)
    return {**config, **{name: config[size] for size, name in architecture.renamed.items()}}


def _rotated(metadata: Metadata, prefix: str, architecture: Architecture, width: int) -> Mapping[str, float]:
    """The share of each head that is rotated, in the words of an architecture that lets it be a part."""
    share: dict[str, float] = {}
    for key in (_ROTATED, _VALUES):
        count = metadata.get(prefix + key, int)
        if key == _ROTATED and architecture.rotated:
            share[architecture.rotated] = (count or width) / width
        elif count not in (None, width):
            raise SourceError(
                f"{metadata.path}: metadata {prefix}{key} is {count}, but heads are {width} wide"
            )
    return share


def _check_understood(metadata: Metadata, prefix: str, architecture: Architecture) -> None:
    tables = (_SIZES, _HEADS_AND_ROTARY, architecture.required, architecture.optional)
    used = {key for table in tables for key, _ in table.values()}
    used |= ROPE_KEYS | DESCRIPTIVE | {_ROTATED, _VALUES}
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
    by_layer: dict[str, Any] = {}
    counts = metadata.values.get(prefix + _KEY_HEADS)
    if architecture.without_heads and isinstance(counts, list):
        kinds = {True: "full_attention", False: architecture.without_heads}
        by_layer["layer_types"] = [kinds[bool(count)] for count in counts]
        metadata = replace(metadata, values={**metadata.values, prefix + _KEY_HEADS: max(counts, default=0)})
    for field, (key, kind) in [*_SIZES.items(), *architecture.required.items()]:
        config[field] = metadata.require(prefix + key, kind)
    for field, (key, kind) in [*_HEADS_AND_ROTARY.items(), *architecture.optional.items()]:
        value = metadata.get(prefix + key, kind)
        if value is not None:
            config[field] = value
    for field, value in config.items():
        if not 0 <= value < float("inf") or (value == 0 and field in (*_SIZES, *_HEADS_AND_ROTARY)):
            raise SourceError(f"{metadata.path}: {field} is {value}; the file is damaged")
    heads = config["num_attention_heads"]
    defaults = {
        "num_key_value_heads": heads,
        "head_dim": config["hidden_size"] // heads,
        "rope_theta": 10000.0,  # llama.cpp's
    }
    return {**defaults, **config, **by_layer}


def _scaling(
    metadata: Metadata, prefix: str, config: Mapping[str, Any], stored: Mapping[str, StoredTensor]
) -> dict[str, Any] | None:
    if stored.keys() & set(LONGROPE.values()):
        return _longrope(metadata, config, stored)
    scaling = rope_scaling(metadata, prefix)
    divisors = stored.get(ROPE_DIVISORS)
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


def _longrope(
    metadata: Metadata, config: Mapping[str, Any], stored: Mapping[str, StoredTensor]
) -> dict[str, Any]:
    """Two sets of divisors, and the context that decides between them."""
    if "original_max_position_embeddings" not in config or not set(LONGROPE.values()) <= stored.keys():
        raise SourceError(f"{metadata.path}: {' and '.join(LONGROPE.values())} are not both understood here")
    return {
        "rope_type": "longrope",
        **{field: _decimals(stored[name]) for field, name in LONGROPE.items()},
    }


def _decimals(tensor: StoredTensor) -> list[float]:
    """Numbers of a config as they were written, before they were rounded to float32."""
    return [float(str(value)) for value in tensor.rows(0, tensor.shape[0])]
