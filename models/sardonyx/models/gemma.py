"""Gemma (arXiv 2403.08295): Llama with scaled embeddings and GELU."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sardonyx.models.blocks import pre_norm
from sardonyx.models.config import flag, integer, number, require
from sardonyx.models.decoder import Decoder, Embedding
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "gemma",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "head_dim": 16,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "hidden_act": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    require(config, "num_key_value_heads", "head_dim")
    size = sizes(config)
    norm = RMSNorm(size.hidden, number(config, "rms_norm_eps", 1e-6))
    bias = flag(config, "attention_bias", False)
    named = "hidden_act" if config.get("hidden_activation") is None else "hidden_activation"
    block = pre_norm(
        norm,
        Attention(size.hidden, size.attention(rotation(config, size.head_width)), bias, bias),
        GatedMLP(
            size.hidden, integer(config, "intermediate_size"), activation(config, named, "gelu_pytorch_tanh")
        ),
    )
    decoder = size.decoder((block,) * size.layers, norm, tied=flag(config, "tie_word_embeddings", True))
    return replace(decoder, embedding=Embedding(scale=size.hidden**0.5))
