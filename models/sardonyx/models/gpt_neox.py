"""GPT-NeoX (arXiv 2204.06745) and Pythia: layers side by side, a part of each head rotated."""

from collections.abc import Mapping
from typing import Any

from sardonyx.models.blocks import parallel_two_norms, pre_norm
from sardonyx.models.config import flag, integer, number, only
from sardonyx.models.decoder import Decoder
from sardonyx.models.parts.attention import Attention
from sardonyx.models.parts.mlp import MLP, activation
from sardonyx.models.parts.norm import LayerNorm
from sardonyx.models.parts.rope import rotation
from sardonyx.models.sizes import sizes

EXAMPLE: Mapping[str, Any] = {
    "model_type": "gpt_neox",
    "hidden_size": 192,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "layer_norm_eps": 1e-05,
    "rotary_pct": 0.5,
    "rotary_emb_base": 10000,
    "hidden_act": "gelu",
    "use_parallel_residual": True,
    "attention_bias": True,
    "tie_word_embeddings": False,
}


def spec(config: Mapping[str, Any]) -> Decoder:
    size = sizes(config)
    only(config, "head_dim", size.hidden // size.heads)
    only(config, "num_key_value_heads", size.heads)
    norm = LayerNorm(size.hidden, number(config, "layer_norm_eps", 1e-5))
    bias = flag(config, "attention_bias", True)
    rotary = {
        **config,
        "rope_theta": number(config, "rotary_emb_base", 10000),
        "partial_rotary_factor": number(config, "rotary_pct", 0.25),
    }
    attention = Attention(size.hidden, size.attention(rotation(rotary, size.head_width)), bias, bias)
    mlp = MLP(
        size.hidden, integer(config, "intermediate_size"), activation(config, default="gelu"), bias=True
    )
    wiring = parallel_two_norms if flag(config, "use_parallel_residual", True) else pre_norm
    blocks = (wiring(norm, attention, mlp),) * size.layers
    return size.decoder(blocks, norm, tied=flag(config, "tie_word_embeddings", False))
