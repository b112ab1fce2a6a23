"""Phi-3 and 3.5 (arXiv 2404.14219), Phi-4 and its mini: Llama trained long (LongRoPE, arXiv 2402.13753)."""

from collections.abc import Mapping
from typing import Any

from sardonyx.models.blocks import pre_norm
from sardonyx.models.config import Config, flag, integer, integer_or_none, number, only, table
from sardonyx.models.decoder import Decoder
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "phi3",
    "hidden_size": 96,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
    "original_max_position_embeddings": 32,
    "hidden_act": "silu",
    "sliding_window": 9,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "rope_scaling": {
        "type": "longrope",
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
        "long_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 9.0],
    },
}


def spec(config: Mapping[str, Any]) -> Decoder:
    only(config, "attention_bias", False)
    size = sizes(config)
    norm = RMSNorm(size.hidden, number(config, "rms_norm_eps", 1e-5))
    rotary = rotation({**config, "rope_scaling": _scaling(config)}, size.head_width)
    window = integer_or_none(config, "sliding_window")
    block = pre_norm(
        norm,
        Attention(size.hidden, size.attention(rotary, window)),
        GatedMLP(size.hidden, integer(config, "intermediate_size"), activation(config)),
    )
    return size.decoder((block,) * size.layers, norm, tied=flag(config, "tie_word_embeddings", False))


def _scaling(config: Config) -> Mapping[str, Any]:
    """`longrope` was called `su` and `yarn` at first."""
    scaling = table(config, "rope_scaling")
    return {**scaling, "type": "longrope"} if scaling.get("type") in ("su", "yarn") else scaling
