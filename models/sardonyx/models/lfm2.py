"""LFM2 (arXiv 2511.23404): short convolutions, and attention in some layers."""

from collections.abc import Mapping, Sequence
from typing import Any

from sardonyx.models.blocks import Block, Residual, pre_norm
from sardonyx.models.config import (
    Config,
    ConfigError,
    flag,
    integer,
    layer_types,
    number,
    number_or_none,
    only,
    require,
)
from sardonyx.models.decoder import Decoder
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.convolution import ShortConvolution
from sardonyx.models.parts.mlp import GatedMLP
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "lfm2",
    "hidden_size": 96,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "layer_types": ["conv", "full_attention", "conv", "conv"],
    "conv_L_cache": 3,
    "conv_bias": False,
    "block_auto_adjust_ff_dim": False,
    "norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    require(config, "num_key_value_heads")
    only(config, "hidden_act", "silu")
    size = sizes(config)
    epsilon = number(config, "norm_eps", 1e-5)
    norm = RMSNorm(size.hidden, epsilon)
    mlp = GatedMLP(size.hidden, _inner(config), "silu")
    theta = number(config, "theta" if config.get("theta") else "rope_theta", 1e6)
    attention = Attention(
        size.hidden,
        size.attention(rotation({**config, "rope_theta": theta}, size.head_width)),
        query_norm=RMSNorm(size.head_width, epsilon, groups=size.heads),
        key_norm=RMSNorm(size.head_width, epsilon, groups=size.kv_heads),
    )
    convolution = ShortConvolution(
        size.hidden, integer(config, "conv_L_cache", 3), flag(config, "conv_bias", False)
    )
    blocks = {
        "full_attention": pre_norm(norm, attention, mlp),
        "conv": Block(
            (
                Residual({"input_layernorm": norm, "conv": convolution}),
                Residual({"post_attention_layernorm": norm, "mlp": mlp}),
            )
        ),
    }
    kinds = layer_types(config, _kinds(config, size.layers), known=tuple(blocks))
    tied = flag(config, "tie_embedding", flag(config, "tie_word_embeddings", True))
    return size.decoder(tuple(blocks[kind] for kind in kinds), norm, tied=tied)


def _kinds(config: Config, layers: int) -> Sequence[str]:
    full = config.get("full_attn_idxs")
    if full is not None and not isinstance(full, list):
        raise ConfigError(f"full_attn_idxs is {full!r:.60}, expected a list of layers")
    return ["full_attention" if full is None or layer in full else "conv" for layer in range(layers)]


def _inner(config: Config) -> int:
    """The feed-forward's width: two thirds of what is stated, times a factor, in whole multiples."""
    inner = integer(config, "block_ff_dim" if config.get("block_ff_dim") else "intermediate_size")
    if not flag(config, "block_auto_adjust_ff_dim", True):
        return inner
    inner = int(2 * inner / 3)
    factor = number_or_none(config, "block_ffn_dim_multiplier", 1.0)
    if factor is None:
        return inner
    inner = int(factor * inner)
    multiple = integer(config, "block_multiple_of", 256)
    return -(-inner // multiple) * multiple
