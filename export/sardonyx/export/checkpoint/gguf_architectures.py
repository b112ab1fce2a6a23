"""How GGUF spells each architecture: one table per architecture, in the terms of Hugging Face's config and
names.

Tables only: what they mean is in `gguf.py`. Keys and tensor names are those of llama.cpp's
`gguf-py/gguf/constants.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """The mapping of one `general.architecture`. Metadata keys are without their `<architecture>.` prefix."""

    model_type: str
    required: Mapping[str, tuple[str, type]]
    """Config field -> metadata key and its type."""
    optional: Mapping[str, tuple[str, type]]
    fixed: Mapping[str, Any]
    """Config fields that this architecture implies."""
    tensors: Mapping[str, str]
    """Tensor stems outside the blocks -> Hugging Face stems (a stem is a name without `.weight` or `.bias`).
    """
    block_tensors: Mapping[str, str]
    """Stems behind `blk.N.` -> stems behind `model.layers.N.`."""
    interleaved: Mapping[str, str] = field(default_factory=dict)
    """Block stems whose rows are stored for interleaved rotary -> the config field that counts their heads.
    """
    neutral: Mapping[str, Any] = field(default_factory=dict)
    """Metadata keys that would change the network unless they have this value."""


_SIZES: Mapping[str, tuple[str, type]] = {
    "hidden_size": ("embedding_length", int),
    "intermediate_size": ("feed_forward_length", int),
    "num_hidden_layers": ("block_count", int),
    "num_attention_heads": ("attention.head_count", int),
    "max_position_embeddings": ("context_length", int),
    "rms_norm_eps": ("attention.layer_norm_rms_epsilon", float),
}
_HEADS_AND_ROTARY: Mapping[str, tuple[str, type]] = {
    "num_key_value_heads": ("attention.head_count_kv", int),
    "head_dim": ("attention.key_length", int),
    "rope_theta": ("rope.freq_base", float),
}

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(
        model_type="llama",
        required=_SIZES,
        optional=_HEADS_AND_ROTARY,
        fixed={"hidden_act": "silu"},
        tensors={"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"},
        block_tensors={
            "attn_norm": "input_layernorm",
            "attn_q": "self_attn.q_proj",
            "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_norm": "post_attention_layernorm",
            "ffn_gate": "mlp.gate_proj",
            "ffn_up": "mlp.up_proj",
            "ffn_down": "mlp.down_proj",
        },
        interleaved={"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"},
        neutral={"expert_count": 0, "expert_used_count": 0, "attention.causal": True},
    ),
}

DESCRIPTIVE = frozenset({"tensor_data_layout", "vocab_size", "rope.scaling.finetuned"})
"""Keys that say nothing the tensors do not: the vocabulary is as large as its embedding."""
