"""SmolLM3: Llama of which every fourth layer knows no positions (NoPE, arXiv 2501.18795)."""

from collections.abc import Mapping, Sequence
from typing import Any

from sardonyx.models.blocks import pre_norm
from sardonyx.models.config import (
    Config,
    ConfigError,
    flag,
    integer,
    integer_or_none,
    layer_types,
    number,
    require,
)
from sardonyx.models.decoder import Decoder
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import GatedMLP, activation
from sardonyx.models.parts.norm import RMSNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "smollm3",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "head_dim": 16,
    "rms_norm_eps": 1e-06,
    "rope_theta": 2000000.0,
    "hidden_act": "silu",
    "no_rope_layer_interval": 4,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    require(config, "num_key_value_heads")
    size = sizes(config)
    norm = RMSNorm(size.hidden, number(config, "rms_norm_eps", 1e-6))
    bias = flag(config, "attention_bias", False)
    inner, mlp_bias = integer(config, "intermediate_size"), flag(config, "mlp_bias", False)
    mlp = GatedMLP(size.hidden, inner, activation(config), mlp_bias)
    rotary = rotation(config, size.head_width)
    blocks = (
        pre_norm(
            norm,
            Attention(size.hidden, size.attention(rotary if rotated else None, window), bias, bias),
            mlp,
        )
        for rotated, window in zip(*_layers(config, size.layers), strict=True)
    )
    return size.decoder(tuple(blocks), norm, tied=flag(config, "tie_word_embeddings", True))


def _layers(config: Config, layers: int) -> tuple[Sequence[bool], Sequence[int | None]]:
    """Whether each layer is rotated, and its window: only those that are not rotated may have one."""
    interval = integer(config, "no_rope_layer_interval", 4)
    stated = config.get("no_rope_layers") or [(layer + 1) % interval != 0 for layer in range(layers)]
    if not isinstance(stated, Sequence) or len(stated) != layers:
        raise ConfigError(f"no_rope_layers is {stated!r:.60}, expected 0 or 1 for each of {layers} layers")
    rotated = [bool(layer) for layer in stated]
    window = integer_or_none(config, "sliding_window")
    if not flag(config, "use_sliding_window", False):
        window = None
    kinds = layer_types(
        config, ["sliding_attention" if window and not r else "full_attention" for r in rotated]
    )
    return rotated, [window if kind == "sliding_attention" else None for kind in kinds]
