"""Mistral 7B (arXiv 2310.06825) and Mistral Nemo: Llama whose layers look back a window only."""

from collections.abc import Mapping
from typing import Any

from sardonyx.models.blocks import pre_norm
from sardonyx.models.config import flag, integer, integer_or_none, number, require
from sardonyx.models.decoder import Decoder
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "mistral",
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
    "sliding_window": 9,
    "tie_word_embeddings": False,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    require(config, "num_key_value_heads")
    size = sizes(config)
    norm = RMSNorm(size.hidden, number(config, "rms_norm_eps", 1e-6))
    window = integer_or_none(config, "sliding_window", 4096)
    block = pre_norm(
        norm,
        Attention(size.hidden, size.attention(rotation(config, size.head_width), window)),
        GatedMLP(size.hidden, integer(config, "intermediate_size"), activation(config)),
    )
    return size.decoder((block,) * size.layers, norm, tied=flag(config, "tie_word_embeddings", False))
