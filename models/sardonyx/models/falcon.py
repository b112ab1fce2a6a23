"""Falcon (arXiv 2311.16867): layers side by side, one key for all queries or one for each group."""

from collections.abc import Callable, Mapping
from typing import Any

from sardonyx.models.blocks import parallel, parallel_two_norms, pre_norm
from sardonyx.models.config import Config, flag, integer, number, only
from sardonyx.models.decoder import Decoder
from sardonyx.models.parts import Part
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import MLP, activation
from sardonyx.models.parts.norm import LayerNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import Sizes, sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "falcon",
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "ffn_hidden_size": 80,
    "layer_norm_epsilon": 1e-05,
    "rope_theta": 10000.0,
    "activation": "gelu",
    "alibi": False,
    "multi_query": True,
    "new_decoder_architecture": False,
    "parallel_attn": True,
    "bias": False,
    "tie_word_embeddings": True,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    only(config, "alibi", False)
    only(config, "apply_residual_connection_post_layernorm", False)
    size = _sizes(config)
    norm = LayerNorm(size.hidden, number(config, "layer_norm_epsilon", 1e-5))
    bias = flag(config, "bias", False)
    attention = Attention(size.hidden, size.attention(rotation(config, size.head_width)), bias, bias)
    mlp = MLP(
        size.hidden,
        integer(config, "ffn_hidden_size", 4 * size.hidden),
        activation(config, "activation", "gelu"),
        bias,
    )
    blocks = (_wiring(config)(norm, attention, mlp),) * size.layers
    return size.decoder(blocks, norm, tied=flag(config, "tie_word_embeddings", True))


def _sizes(config: Config) -> Sizes:
    heads = integer(config, "num_attention_heads")
    grouped = flag(config, "new_decoder_architecture", False)
    many = grouped or not flag(config, "multi_query", True)
    kv_heads = integer(config, "num_kv_heads", heads) if grouped else heads if many else 1
    context = integer(config, "max_position_embeddings", 2048)
    size = sizes({**config, "num_key_value_heads": kv_heads, "max_position_embeddings": context})
    only(config, "head_dim", size.hidden // size.heads)
    return size


def _wiring(config: Config) -> Callable[[Part, Part, Part], Part]:
    side_by_side = flag(config, "parallel_attn", True)
    if not flag(config, "new_decoder_architecture", False):
        only(config, "num_ln_in_parallel_attn", 1)
        return parallel if side_by_side else pre_norm
    only(config, "parallel_attn", True)
    only(config, "num_ln_in_parallel_attn", 1, 2)
    return parallel_two_norms if integer(config, "num_ln_in_parallel_attn", 2) == 2 else parallel
