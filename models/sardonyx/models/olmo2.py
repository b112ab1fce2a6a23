"""OLMo 2 (arXiv 2501.00656): norms behind the layers instead of before, and over all queries at once."""

from collections.abc import Mapping
from typing import Any

from sardonyx.models.blocks import post_norm
from sardonyx.models.config import flag, integer, number
from sardonyx.models.decoder import Decoder
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "olmo2",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "head_dim": 16,
    "rms_norm_eps": 1e-06,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    size = sizes(config)
    epsilon = number(config, "rms_norm_eps", 1e-5)
    norm = RMSNorm(size.hidden, epsilon)
    bias = flag(config, "attention_bias", False)
    attention = Attention(
        size.hidden,
        size.attention(rotation(config, size.head_width)),
        input_bias=bias,
        output_bias=bias,
        query_norm=RMSNorm(size.heads * size.head_width, epsilon),
        key_norm=RMSNorm(size.kv_heads * size.head_width, epsilon),
    )
    mlp = GatedMLP(size.hidden, integer(config, "intermediate_size"), activation(config))
    block = post_norm(norm, attention, mlp)
    return size.decoder((block,) * size.layers, norm, tied=flag(config, "tie_word_embeddings", False))
