"""Gemma 2 (arXiv 2408.00118): capped scores and logits, norms on both sides, every other layer a window."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sardonyx.models.blocks import sandwich
from sardonyx.models.config import (
    flag,
    integer,
    integer_or_none,
    layer_types,
    number,
    number_or_none,
    require,
)
from sardonyx.models.decoder import Decoder, Embedding, Head
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "gemma2",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "head_dim": 16,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 20,
    "sliding_window": 9,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 3.0,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    require(config, "num_key_value_heads", "head_dim")
    size = sizes(config)
    norm = RMSNorm(size.hidden, number(config, "rms_norm_eps", 1e-6))
    bias = flag(config, "attention_bias", False)
    mlp = GatedMLP(
        size.hidden,
        integer(config, "intermediate_size"),
        activation(config, "hidden_activation", "gelu_pytorch_tanh"),
    )
    attention = replace(
        size.attention(rotation(config, size.head_width)),
        scale=number(config, "query_pre_attn_scalar", 256) ** -0.5,
        softcap=number_or_none(config, "attn_logit_softcapping", 50.0),
    )
    window = integer_or_none(config, "sliding_window", 4096)
    default = [("sliding_attention", "full_attention")[layer % 2] for layer in range(size.layers)]
    windows = (window if kind == "sliding_attention" else None for kind in layer_types(config, default))
    blocks = (
        sandwich(norm, Attention(size.hidden, replace(attention, window=w), bias, bias), mlp) for w in windows
    )
    decoder = size.decoder(tuple(blocks), norm, tied=flag(config, "tie_word_embeddings", True))
    cap = number_or_none(config, "final_logit_softcapping", 30.0)
    return replace(decoder, embedding=Embedding(scale=size.hidden**0.5), head=Head(softcap=cap))
