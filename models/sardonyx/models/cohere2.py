"""Command R7B and A: Command R whose windows are rotated, and whose layers between know no positions."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sardonyx.models.blocks import parallel
from sardonyx.models.config import flag, integer, layer_types, number
from sardonyx.models.decoder import Decoder, Head
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import LayerNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "cohere2",
    "hidden_size": 96,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "layer_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "logit_scale": 0.25,
    "sliding_window": 9,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    size = sizes(config)
    norm = LayerNorm(size.hidden, number(config, "layer_norm_eps", 1e-5), bias=False)
    bias = flag(config, "attention_bias", False)
    mlp = GatedMLP(size.hidden, integer(config, "intermediate_size"), activation(config))
    every = integer(config, "sliding_window_pattern", 4)
    kinds = layer_types(
        config,
        ["sliding_attention" if (layer + 1) % every else "full_attention" for layer in range(size.layers)],
    )
    specs = {
        "sliding_attention": size.attention(
            rotation(config, size.head_width), integer(config, "sliding_window", 4096)
        ),
        "full_attention": size.attention(None),
    }
    blocks = (parallel(norm, Attention(size.hidden, specs[kind], bias, bias), mlp) for kind in kinds)
    decoder = size.decoder(tuple(blocks), norm, tied=flag(config, "tie_word_embeddings", True))
    return replace(decoder, head=Head(scale=number(config, "logit_scale", 0.0625)))
