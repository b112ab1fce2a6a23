"""Ministral 8B: Mistral whose layers may differ in looking back a window or all the way."""

from collections.abc import Mapping
from typing import Any

from sardonyx.models.blocks import pre_norm
from sardonyx.models.config import flag, integer, integer_or_none, layer_types, number, require
from sardonyx.models.decoder import Decoder
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "ministral",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "head_dim": 16,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "sliding_window": 9,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "tie_word_embeddings": False,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    require(config, "num_key_value_heads")
    size = sizes(config)
    norm = RMSNorm(size.hidden, number(config, "rms_norm_eps", 1e-6))
    mlp = GatedMLP(size.hidden, integer(config, "intermediate_size"), activation(config))
    rotary = rotation(config, size.head_width)
    window = integer_or_none(config, "sliding_window", 4096)
    kinds = layer_types(config, ["sliding_attention" if window else "full_attention"] * size.layers)
    blocks = (
        pre_norm(
            norm,
            Attention(size.hidden, size.attention(rotary, window if kind == "sliding_attention" else None)),
            mlp,
        )
        for kind in kinds
    )
    return size.decoder(tuple(blocks), norm, tied=flag(config, "tie_word_embeddings", False))
