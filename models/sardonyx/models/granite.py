"""Granite 3: Llama with multipliers, which keep activations of one size at every width (muP)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sardonyx.models.blocks import pre_norm
from sardonyx.models.config import flag, integer, number
from sardonyx.models.decoder import Decoder, Embedding, Head
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "granite",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "head_dim": 16,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.05,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
    "tie_word_embeddings": True,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    size = sizes(config)
    norm = RMSNorm(size.hidden, number(config, "rms_norm_eps", 1e-6))
    bias = flag(config, "attention_bias", False)
    attention = replace(
        size.attention(rotation(config, size.head_width)), scale=number(config, "attention_multiplier", 1.0)
    )
    block = pre_norm(
        norm,
        Attention(size.hidden, attention, input_bias=bias, output_bias=bias),
        GatedMLP(
            size.hidden,
            integer(config, "intermediate_size"),
            activation(config),
            bias=flag(config, "mlp_bias", False),
        ),
        scale=number(config, "residual_multiplier", 1.0),
    )
    decoder = size.decoder((block,) * size.layers, norm, tied=flag(config, "tie_word_embeddings", False))
    return replace(
        decoder,
        embedding=Embedding(scale=number(config, "embedding_multiplier", 1.0)),
        head=Head(scale=1 / number(config, "logits_scaling", 1.0)),
    )
