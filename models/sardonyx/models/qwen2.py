"""Qwen 2 (arXiv 2407.10671) and 2.5: Llama with biases on queries, keys and values."""

from collections.abc import Iterator, Mapping
from typing import Any

from sardonyx.models.blocks import pre_norm
from sardonyx.models.config import Config, flag, integer, integer_or_none, layer_types, number, require
from sardonyx.models.decoder import Decoder
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 96,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "hidden_act": "silu",
    "use_sliding_window": False,
    "tie_word_embeddings": True,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    require(config, "num_key_value_heads")
    size = sizes(config)
    norm = RMSNorm(size.hidden, number(config, "rms_norm_eps", 1e-6))
    mlp = GatedMLP(size.hidden, integer(config, "intermediate_size"), activation(config))
    rotary = rotation(config, size.head_width)
    blocks = (
        pre_norm(norm, Attention(size.hidden, size.attention(rotary, window), input_bias=True), mlp)
        for window in windows(config, size.layers)
    )
    return size.decoder(tuple(blocks), norm, tied=flag(config, "tie_word_embeddings", False))


def windows(config: Config, layers: int) -> Iterator[int | None]:
    """How far each layer looks back: a window from `max_window_layers` on, if windows are used at all."""
    window = integer_or_none(config, "sliding_window", 4096)
    if not flag(config, "use_sliding_window", False):
        window = None
    full = integer(config, "max_window_layers", 28) if window else layers
    default = ["full_attention" if layer < full else "sliding_attention" for layer in range(layers)]
    return (window if kind == "sliding_attention" else None for kind in layer_types(config, default))
