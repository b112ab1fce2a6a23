"""gpt-oss (arXiv 2508.10925): experts, attention sinks, every other layer a window, biases everywhere."""

from collections.abc import Mapping
from typing import Any

from sardonyx.models.blocks import pre_norm
from sardonyx.models.config import flag, integer, layer_types, number, only, require
from sardonyx.models.decoder import Decoder
from sardonyx.models.graph import MixtureSpec
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mixture import Mixture
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "gpt_oss",
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "sliding_window": 9,
    "rms_norm_eps": 1e-05,
    "rope_theta": 150000.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 4.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 32,
    },
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}

SHARPNESS, LIMIT = 1.702, 7.0
"""Of the activation: they are in no config."""


def spec(config: Mapping[str, Any]) -> Decoder:
    require(config, "num_key_value_heads", "head_dim", "num_local_experts", "rope_theta", "rope_scaling")
    only(config, "hidden_act", "silu")
    only(config, "attention_bias", True)
    only(config, "swiglu_limit", LIMIT)
    size = sizes(config)
    norm = RMSNorm(size.hidden, number(config, "rms_norm_eps", 1e-5))
    mixed = Mixture(
        size.hidden,
        integer(config, "intermediate_size"),
        integer(config, "num_local_experts"),
        MixtureSpec(
            integer(config, "num_experts_per_tok", 4),
            normalized=True,
            sharpness=SHARPNESS,
            offset=1.0,
            limit=LIMIT,
        ),
        bias=True,
    )
    rotary = rotation(config, size.head_width)
    window = integer(config, "sliding_window", 128)
    default = [("sliding_attention", "full_attention")[layer % 2] for layer in range(size.layers)]
    windows = (window if kind == "sliding_attention" else None for kind in layer_types(config, default))
    blocks = (
        pre_norm(norm, Attention(size.hidden, size.attention(rotary, w), True, True, sinks=True), mixed)
        for w in windows
    )
    return size.decoder(tuple(blocks), norm, tied=flag(config, "tie_word_embeddings", False))
