"""Command R: layers side by side behind one norm, scaled logits."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sardonyx.models.blocks import parallel
from sardonyx.models.config import flag, integer, number
from sardonyx.models.decoder import Decoder, Head
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import LayerNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "cohere",
    "hidden_size": 96,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "layer_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "logit_scale": 0.25,
    "use_qk_norm": True,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    size = sizes(config)
    epsilon = number(config, "layer_norm_eps", 1e-5)
    norm = LayerNorm(size.hidden, epsilon, bias=False)
    bias = flag(config, "attention_bias", False)
    normed = flag(config, "use_qk_norm", False)
    attention = Attention(
        size.hidden,
        size.attention(rotation(config, size.head_width)),
        input_bias=bias,
        output_bias=bias,
        query_norm=_per_head(size.heads, size.head_width, epsilon) if normed else None,
        key_norm=_per_head(size.kv_heads, size.head_width, epsilon) if normed else None,
    )
    mlp = GatedMLP(size.hidden, integer(config, "intermediate_size"), activation(config))
    blocks = (parallel(norm, attention, mlp),) * size.layers
    decoder = size.decoder(blocks, norm, tied=flag(config, "tie_word_embeddings", True))
    return replace(decoder, head=Head(scale=number(config, "logit_scale", 0.0625)))


def _per_head(heads: int, width: int, epsilon: float) -> LayerNorm:
    return LayerNorm(heads * width, epsilon, bias=False, groups=heads)
