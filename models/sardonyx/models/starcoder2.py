"""StarCoder2 (arXiv 2402.19173): layer norms and biases, a plain feed-forward, windows."""

from collections.abc import Mapping
from typing import Any

from sardonyx.models.blocks import pre_norm
from sardonyx.models.config import flag, integer, integer_or_none, number, require
from sardonyx.models.decoder import Decoder
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import MLP, activation
from sardonyx.models.parts.norm import LayerNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "starcoder2",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "head_dim": 16,
    "norm_epsilon": 1e-05,
    "rope_theta": 100000.0,
    "hidden_act": "gelu_pytorch_tanh",
    "sliding_window": 9,
    "use_bias": True,
    "tie_word_embeddings": True,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    require(config, "num_key_value_heads")
    size = sizes(config)
    norm = LayerNorm(size.hidden, number(config, "norm_epsilon", 1e-5))
    bias = flag(config, "use_bias", True)
    window = integer_or_none(config, "sliding_window")
    block = pre_norm(
        norm,
        Attention(size.hidden, size.attention(rotation(config, size.head_width), window), bias, bias),
        MLP(
            size.hidden,
            integer(config, "intermediate_size"),
            activation(config, default="gelu_pytorch_tanh"),
            bias,
        ),
    )
    return size.decoder((block,) * size.layers, norm, tied=flag(config, "tie_word_embeddings", True))
