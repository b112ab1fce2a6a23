"""GPT-2: learned positions, layer norms, biases everywhere."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sardonyx.models.blocks import pre_norm
from sardonyx.models.config import Config, flag, integer, number, only
from sardonyx.models.decoder import Decoder, Embedding
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import MLP, activation
from sardonyx.models.parts.norm import LayerNorm
from sardonyx.models.sizes import Sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "gpt2",
    "n_embd": 96,
    "n_inner": 80,
    "n_layer": 2,
    "n_head": 6,
    "vocab_size": 99,
    "n_positions": 128,
    "layer_norm_epsilon": 1e-05,
    "activation_function": "gelu_new",
    "tie_word_embeddings": True,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    only(config, "add_cross_attention", False)
    size = _sizes(config)
    norm = LayerNorm(size.hidden, number(config, "layer_norm_epsilon", 1e-5))
    mlp = MLP(
        size.hidden,
        integer(config, "n_inner", 4 * size.hidden),
        activation(config, "activation_function", "gelu_new"),
        bias=True,
    )
    scaled = flag(config, "scale_attn_weights", True)
    by_layer = flag(config, "scale_attn_by_inverse_layer_idx", False)
    plain = size.attention(None)
    specs = (
        replace(plain, scale=(plain.scale if scaled else 1.0) / (layer + 1 if by_layer else 1))
        for layer in range(size.layers)
    )
    blocks = (pre_norm(norm, Attention(size.hidden, spec, True, True), mlp) for spec in specs)
    decoder = size.decoder(tuple(blocks), norm, tied=flag(config, "tie_word_embeddings", True))
    return replace(decoder, embedding=Embedding(positions=size.context))


def _sizes(config: Config) -> Sizes:
    hidden, heads = integer(config, "n_embd"), integer(config, "n_head")
    return Sizes(
        hidden=hidden,
        layers=integer(config, "n_layer"),
        heads=heads,
        kv_heads=heads,
        head_width=hidden // heads,
        vocab=integer(config, "vocab_size"),
        context=integer(config, "n_positions", 1024),
    )
