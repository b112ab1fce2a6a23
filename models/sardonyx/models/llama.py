"""Llama 1 to 3 (arXiv 2407.21783), SmolLM and SmolLM2."""

from collections.abc import Mapping
from typing import Any

from sardonyx.models.blocks import pre_norm
from sardonyx.models.config import flag, integer, number
from sardonyx.models.decoder import Decoder
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    size = sizes(config)
    norm = RMSNorm(size.hidden, number(config, "rms_norm_eps", 1e-6))
    bias = flag(config, "attention_bias", False)
    attention = size.attention(rotation(config, size.head_width))
    block = pre_norm(
        norm,
        Attention(size.hidden, attention, input_bias=bias, output_bias=bias),
        GatedMLP(
            size.hidden,
            integer(config, "intermediate_size"),
            activation(config),
            bias=flag(config, "mlp_bias", False),
        ),
    )
    return size.decoder((block,) * size.layers, norm, tied=flag(config, "tie_word_embeddings", False))
