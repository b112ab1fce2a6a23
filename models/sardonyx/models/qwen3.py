"""Qwen 3 (arXiv 2505.09388): Llama with normed queries and keys."""

from collections.abc import Mapping
from typing import Any

from sardonyx.models.blocks import pre_norm
from sardonyx.models.config import flag, integer, number, require
from sardonyx.models.decoder import Decoder
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.qwen2 import windows
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "head_dim": 16,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "hidden_act": "silu",
    "use_sliding_window": False,
    "tie_word_embeddings": True,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    require(config, "num_key_value_heads", "head_dim")
    size = sizes(config)
    epsilon = number(config, "rms_norm_eps", 1e-6)
    norm = RMSNorm(size.hidden, epsilon)
    mlp = GatedMLP(size.hidden, integer(config, "intermediate_size"), activation(config))
    bias = flag(config, "attention_bias", False)
    rotary = rotation(config, size.head_width)
    blocks = (
        pre_norm(
            norm,
            Attention(
                size.hidden,
                size.attention(rotary, window),
                input_bias=bias,
                output_bias=bias,
                query_norm=RMSNorm(size.head_width, epsilon, groups=size.heads),
                key_norm=RMSNorm(size.head_width, epsilon, groups=size.kv_heads),
            ),
            mlp,
        )
        for window in windows(config, size.layers)
    )
    return size.decoder(tuple(blocks), norm, tied=flag(config, "tie_word_embeddings", False))
