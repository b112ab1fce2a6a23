"""Gemma 3 (arXiv 2503.19786): normed queries and keys, windows that turn faster than the layers between."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sardonyx.models.blocks import sandwich
from sardonyx.models.config import (
    Config,
    flag,
    integer,
    layer_types,
    number,
    number_or_none,
    only,
    require,
    table,
)
from sardonyx.models.decoder import Decoder, Embedding, Head
from sardonyx.models.graph import AttentionSpec
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import Sizes, sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "gemma3_text",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "head_dim": 16,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 20,
    "sliding_window": 9,
    "sliding_window_pattern": 2,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    require(config, "num_key_value_heads", "head_dim")
    only(config, "attn_logit_softcapping")
    only(config, "use_bidirectional_attention", False)
    size = sizes(config)
    epsilon = number(config, "rms_norm_eps", 1e-6)
    norm = RMSNorm(size.hidden, epsilon)
    bias = flag(config, "attention_bias", False)
    mlp = GatedMLP(
        size.hidden,
        integer(config, "intermediate_size"),
        activation(config, "hidden_activation", "gelu_pytorch_tanh"),
    )
    specs = _attentions(config, size)
    blocks = (
        sandwich(
            norm,
            Attention(
                size.hidden,
                specs[kind],
                input_bias=bias,
                output_bias=bias,
                query_norm=RMSNorm(size.head_width, epsilon, groups=size.heads),
                key_norm=RMSNorm(size.head_width, epsilon, groups=size.kv_heads),
            ),
            mlp,
        )
        for kind in _kinds(config, size.layers)
    )
    decoder = size.decoder(tuple(blocks), norm, tied=flag(config, "tie_word_embeddings", True))
    cap = number_or_none(config, "final_logit_softcapping")
    return replace(decoder, embedding=Embedding(scale=size.hidden**0.5), head=Head(softcap=cap))


def _kinds(config: Config, layers: int) -> Sequence[str]:
    """Every so many layers one sees all."""
    every = integer(config, "sliding_window_pattern", 6)
    return layer_types(
        config,
        ["sliding_attention" if (layer + 1) % every else "full_attention" for layer in range(layers)],
    )


def _attentions(config: Config, size: Sizes) -> Mapping[str, AttentionSpec]:
    """By kind of layer. Windows are turned by a frequency of their own, which is never scaled."""
    by_kind = table(config, "rope_parameters") or {
        "full_attention": {
            "rope_theta": number(config, "rope_theta", 1e6),
            **table(config, "rope_scaling"),
        },
        "sliding_attention": {"rope_theta": number(config, "rope_local_base_freq", 1e4)},
    }
    windows = {"full_attention": None, "sliding_attention": integer(config, "sliding_window", 4096)}
    scale = number(config, "query_pre_attn_scalar", 256) ** -0.5
    plain = {field: value for field, value in config.items() if field != "rope_scaling"}
    return {
        kind: replace(
            size.attention(rotation({**plain, "rope_parameters": by_kind[kind]}, size.head_width), window),
            scale=scale,
        )
        for kind, window in windows.items()
    }
