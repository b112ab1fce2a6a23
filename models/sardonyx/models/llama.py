"""Llama 1 to 3 (arXiv 2407.21783), SmolLM and SmolLM2."""

from collections.abc import Mapping
from typing import Any

from sardonyx.models.blocks import PreNorm
from sardonyx.models.config import ConfigError, flag, integer, number
from sardonyx.models.decoder import Decoder
from sardonyx.models.graph import AttentionSpec
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation

EXAMPLE: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    hidden, heads = integer(config, "hidden_size"), integer(config, "num_attention_heads")
    width = integer(config, "head_dim", hidden // heads)
    if config.get("hidden_act", "silu") != "silu":
        raise ConfigError(f"hidden_act is {config['hidden_act']!r}, llama knows silu")
    norm = RMSNorm(hidden, number(config, "rms_norm_eps", 1e-6))
    bias = flag(config, "attention_bias", False)
    attention = AttentionSpec(
        heads=heads,
        kv_heads=integer(config, "num_key_value_heads", heads),
        head_width=width,
        scale=width**-0.5,
        rotation=rotation(config, width),
    )
    block = PreNorm(
        mixer_norm=norm,
        mixer=Attention(hidden, attention, input_bias=bias, output_bias=bias),
        ffn_norm=norm,
        ffn=GatedMLP(
            hidden, integer(config, "intermediate_size"), "silu", bias=flag(config, "mlp_bias", False)
        ),
    )
    return Decoder(
        vocab=integer(config, "vocab_size"),
        hidden=hidden,
        context=integer(config, "max_position_embeddings"),
        blocks=(block,) * integer(config, "num_hidden_layers"),
        norm=norm,
        tied=flag(config, "tie_word_embeddings", False),
    )
