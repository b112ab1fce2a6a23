"""Qwen 3 with experts (arXiv 2505.09388): Qwen 3 of whose feed-forwards most are mixtures."""

from collections.abc import Iterator, Mapping
from typing import Any

from sardonyx.models.blocks import pre_norm
from sardonyx.models.config import Config, ConfigError, flag, integer, integer_or_none, number, only, require
from sardonyx.models.decoder import Decoder
from sardonyx.models.graph import MixtureSpec
from sardonyx.models.parts import Part
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mixture import Mixture
from sardonyx.models.parts.mlp import GatedMLP
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import Sizes, sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "qwen3_moe",
    "hidden_size": 64,
    "intermediate_size": 80,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "mlp_only_layers": [1],
    "decoder_sparse_step": 1,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    require(config, "num_key_value_heads", "num_experts", "num_experts_per_tok", "moe_intermediate_size")
    only(config, "hidden_act", "silu")
    size = sizes(config)
    epsilon = number(config, "rms_norm_eps", 1e-6)
    norm = RMSNorm(size.hidden, epsilon)
    bias = flag(config, "attention_bias", False)
    used = flag(config, "use_sliding_window", False)
    window = integer_or_none(config, "sliding_window", 4096) if used else None
    attention = Attention(
        size.hidden,
        size.attention(rotation(config, size.head_width), window),
        input_bias=bias,
        output_bias=bias,
        query_norm=RMSNorm(size.head_width, epsilon, groups=size.heads),
        key_norm=RMSNorm(size.head_width, epsilon, groups=size.kv_heads),
    )
    blocks = (pre_norm(norm, attention, ffn) for ffn in _feed_forwards(config, size))
    return size.decoder(tuple(blocks), norm, tied=flag(config, "tie_word_embeddings", False))


def _feed_forwards(config: Config, size: Sizes) -> Iterator[Part]:
    """A mixture in every so many layers, except where a plain one is asked for."""
    plain = config.get("mlp_only_layers") or []
    if not isinstance(plain, list):
        raise ConfigError(f"mlp_only_layers is {plain!r:.60}, expected a list of layers")
    every = integer(config, "decoder_sparse_step", 1)
    dense = GatedMLP(size.hidden, integer(config, "intermediate_size"), "silu")
    mixed = Mixture(
        size.hidden,
        integer(config, "moe_intermediate_size"),
        integer(config, "num_experts"),
        MixtureSpec(integer(config, "num_experts_per_tok"), flag(config, "norm_topk_prob", False)),
    )
    for layer in range(size.layers):
        yield dense if layer in plain or (layer + 1) % every else mixed
