"""Mixtral (arXiv 2401.04088): Mistral with experts for feed-forwards."""

from collections.abc import Mapping
from typing import Any

from sardonyx.models.blocks import pre_norm
from sardonyx.models.config import flag, integer, integer_or_none, number, only, require
from sardonyx.models.decoder import Decoder
from sardonyx.models.graph import MixtureSpec
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mixture import Mixture
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "mixtral",
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "hidden_act": "silu",
    "sliding_window": None,
    "tie_word_embeddings": False,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    require(config, "num_key_value_heads", "num_local_experts", "num_experts_per_tok")
    only(config, "hidden_act", "silu")
    size = sizes(config)
    norm = RMSNorm(size.hidden, number(config, "rms_norm_eps", 1e-5))
    rotary = rotation({"rope_theta": 1e6, **config}, size.head_width)
    block = pre_norm(
        norm,
        Attention(size.hidden, size.attention(rotary, integer_or_none(config, "sliding_window"))),
        Mixture(
            size.hidden,
            integer(config, "intermediate_size"),
            integer(config, "num_local_experts"),
            MixtureSpec(integer(config, "num_experts_per_tok"), normalized=True),
        ),
    )
    return size.decoder((block,) * size.layers, norm, tied=flag(config, "tie_word_embeddings", False))
