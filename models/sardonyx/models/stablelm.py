"""StableLM (arXiv 2402.17834): Llama with layer norms, a part of each head rotated."""

from collections.abc import Mapping
from typing import Any

from sardonyx.models.blocks import parallel, pre_norm
from sardonyx.models.config import flag, integer, number, only, require
from sardonyx.models.decoder import Decoder
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import LayerNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "stablelm",
    "hidden_size": 192,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "layer_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5,
    "hidden_act": "silu",
    "use_qkv_bias": True,
    "qk_layernorm": True,
    "use_parallel_residual": False,
    "tie_word_embeddings": False,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    require(config, "num_key_value_heads")
    size = sizes(config)
    only(config, "head_dim", size.hidden // size.heads)
    epsilon = number(config, "layer_norm_eps", 1e-5)
    norm = LayerNorm(size.hidden, epsilon)
    rotary = rotation({"partial_rotary_factor": 0.25, **config}, size.head_width)
    normed = flag(config, "qk_layernorm", False)
    attention = Attention(
        size.hidden,
        size.attention(rotary),
        input_bias=flag(config, "use_qkv_bias", False),
        query_norm=_per_head(size.heads, size.head_width, epsilon) if normed else None,
        key_norm=_per_head(size.kv_heads, size.head_width, epsilon) if normed else None,
    )
    mlp = GatedMLP(size.hidden, integer(config, "intermediate_size"), activation(config))
    wiring = parallel if flag(config, "use_parallel_residual", False) else pre_norm
    blocks = (wiring(norm, attention, mlp),) * size.layers
    return size.decoder(blocks, norm, tied=flag(config, "tie_word_embeddings", False))


def _per_head(heads: int, width: int, epsilon: float) -> LayerNorm:
    return LayerNorm(heads * width, epsilon, bias=False, groups=heads)
