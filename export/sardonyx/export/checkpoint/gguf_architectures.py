"""How GGUF spells each architecture: one table per architecture, in the terms of Hugging Face's config and of
canonical tensor names.

Tables only: what they mean is in `gguf.py`, `gguf_config.py` and `layouts.py`. Keys are those of llama.cpp's
`gguf-py/gguf/constants.py`; which of them are written, and what is done to tensors, is in its converter, and
what is left to the reader in its `llama-model.cpp`: https://github.com/ggml-org/llama.cpp.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sardonyx.export.checkpoint import gguf_implied
from sardonyx.export.checkpoint import gguf_layouts as parts
from sardonyx.export.checkpoint.huggingface_layouts import L
from sardonyx.export.checkpoint.layouts import Config, Layout

Keys = Mapping[str, tuple[str, type]]
"""Config field -> metadata key, without its `<architecture>.` prefix, and its type."""


@dataclass(frozen=True)
class Architecture:
    """The mapping of one `general.architecture`."""

    model_type: str
    layout: Layout
    """A tensor that is not in it is refused."""
    required: Keys
    optional: Keys = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Config fields that this architecture implies."""
    present: Mapping[str, str] = field(default_factory=dict)
    """Config fields that say whether there is a tensor, of this name."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Sizes that its config calls otherwise than Llama's."""
    rotated: str | None = None
    """The config field of the share of each head that is rotated, where it is not all."""
    without_heads: str | None = None
    """The type of layers that have no heads, in files that count them layer by layer."""
    implied: Callable[[Config], Mapping[str, Any]] = lambda config: {}
    """Config fields that follow from others."""
    neutral: Mapping[str, Any] = field(default_factory=dict)
    """Metadata keys that would change the network unless they have this value."""


RMS: Keys = {"rms_norm_eps": ("attention.layer_norm_rms_epsilon", float)}
LAYER_EPSILON = ("attention.layer_norm_epsilon", float)
WINDOW: Keys = {"sliding_window": ("attention.sliding_window", int)}
EXPERTS: Keys = {
    "num_local_experts": ("expert_count", int),
    "num_experts_per_tok": ("expert_used_count", int),
}
NO_EXPERTS = {"expert_count": 0, "expert_used_count": 0}
BIASES = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}

LLAMA = Architecture(
    model_type="llama",
    required=RMS,
    fixed={"hidden_act": "silu"},
    present=BIASES,
    layout={**parts.ENDS, **parts.PRE_NORMS, **parts.PERMUTED, **parts.GATED},
    neutral={**NO_EXPERTS, "attention.causal": True},
)
GEMMA = Architecture(
    model_type="gemma",
    required=RMS,
    fixed={"hidden_act": "gelu_pytorch_tanh"},
    present={"attention_bias": "blk.0.attn_q.bias"},
    layout={**parts.PLAIN, **parts.GATED},
)
QWEN3 = Architecture(
    model_type="qwen3",
    required=RMS,
    fixed={"hidden_act": "silu"},
    present={"attention_bias": "blk.0.attn_q.bias"},
    layout={**parts.PLAIN, **parts.QK_NORMS, **parts.GATED},
)

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": LLAMA,
    "llama with experts": replace(
        LLAMA,
        model_type="mixtral",
        required={**RMS, **EXPERTS},
        present={},
        layout={
            **{stem: place for stem, place in LLAMA.layout.items() if stem not in parts.GATED},
            **parts.MIXTURE,
            **parts.EXPERTS_APART,
        },
        neutral={"attention.causal": True},
    ),
    "smollm3": replace(
        LLAMA, model_type="smollm3", fixed={"hidden_act": "silu", "no_rope_layer_interval": 4}
    ),
    "granite": replace(
        LLAMA,
        model_type="granite",
        required={
            **RMS,
            "attention_multiplier": ("attention.scale", float),
            "embedding_multiplier": ("embedding_scale", float),
            "residual_multiplier": ("residual_scale", float),
            "logits_scaling": ("logit_scale", float),
        },
    ),
    "qwen2": replace(
        LLAMA,
        model_type="qwen2",
        present={},
        layout={**parts.PLAIN, **parts.GATED},
    ),
    "qwen3": QWEN3,
    "qwen3moe": replace(
        QWEN3,
        model_type="qwen3_moe",
        required={
            **RMS,
            "num_experts": ("expert_count", int),
            "num_experts_per_tok": ("expert_used_count", int),
            "moe_intermediate_size": ("expert_feed_forward_length", int),
        },
        fixed={"hidden_act": "silu", "norm_topk_prob": True},
        layout={**parts.PLAIN, **parts.QK_NORMS, **parts.MIXTURE},
    ),
    "gemma": GEMMA,
    "gemma2": replace(
        GEMMA,
        model_type="gemma2",
        optional={
            **WINDOW,
            "attn_logit_softcapping": ("attn_logit_softcapping", float),
            "final_logit_softcapping": ("final_logit_softcapping", float),
        },
        fixed={"hidden_activation": "gelu_pytorch_tanh"},
        implied=gguf_implied.gemma2,
        layout={**parts.ENDS, **parts.SANDWICH_NORMS, **parts.ATTENTION, **parts.GATED},
    ),
    "gemma3": replace(
        GEMMA,
        model_type="gemma3_text",
        required={**RMS, **WINDOW},
        optional={
            "rope_local_base_freq": ("rope.freq_base_swa", float),
            "final_logit_softcapping": ("final_logit_softcapping", float),
        },
        fixed={"hidden_activation": "gelu_pytorch_tanh"},
        implied=gguf_implied.gemma3,
        layout={**parts.ENDS, **parts.SANDWICH_NORMS, **parts.ATTENTION, **parts.QK_NORMS, **parts.GATED},
    ),
    "phi3": Architecture(
        model_type="phi3",
        required=RMS,
        optional={
            **WINDOW,
            "original_max_position_embeddings": ("rope.scaling.original_context_length", int),
            "attention_factor": ("rope.scaling.attn_factor", float),
        },
        fixed={"hidden_act": "silu"},
        implied=gguf_implied.phi3,
        rotated="partial_rotary_factor",
        layout={**parts.PLAIN, **parts.FUSED, **parts.FUSED_GATES},
    ),
    "olmo2": Architecture(
        model_type="olmo2",
        required=RMS,
        fixed={"hidden_act": "silu"},
        present={"attention_bias": "blk.0.attn_q.bias"},
        layout={
            **parts.ENDS,
            **parts.ATTENTION,
            **parts.QK_NORMS,
            **parts.GATED,
            f"{parts.B}.post_attention_norm": f"{L}.post_attention_layernorm",
            f"{parts.B}.post_ffw_norm": f"{L}.post_feedforward_layernorm",
        },
    ),
    "starcoder2": Architecture(
        model_type="starcoder2",
        required={"norm_epsilon": LAYER_EPSILON},
        fixed={"hidden_act": "gelu_pytorch_tanh"},
        present={"use_bias": "blk.0.attn_q.bias"},
        layout={**parts.PLAIN, **parts.MLP},
    ),
    "gpt2": Architecture(
        model_type="gpt2",
        required={"layer_norm_epsilon": LAYER_EPSILON},
        fixed={"activation_function": "gelu_new"},
        renamed={
            "hidden_size": "n_embd",
            "intermediate_size": "n_inner",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "max_position_embeddings": "n_positions",
        },
        layout={
            **parts.ENDS,
            **parts.PRE_NORMS,
            **parts.FUSED,
            **parts.MLP,
            "position_embd": "model.embed_positions",
        },
    ),
    "gptneox": Architecture(
        model_type="gpt_neox",
        required={"layer_norm_eps": LAYER_EPSILON},
        optional={"use_parallel_residual": ("use_parallel_residual", bool)},
        fixed={"hidden_act": "gelu"},
        present={"attention_bias": "blk.0.attn_qkv.bias"},
        renamed={"rope_theta": "rotary_emb_base"},
        rotated="rotary_pct",
        layout={**parts.ENDS, **parts.PRE_NORMS, **parts.FUSED, **parts.MLP},
    ),
    "falcon": Architecture(
        model_type="falcon",
        required={"layer_norm_epsilon": LAYER_EPSILON},
        fixed={"activation": "gelu"},
        present={"bias": "blk.0.attn_qkv.bias", "second_norm": "blk.0.attn_norm_2.weight"},
        renamed={"intermediate_size": "ffn_hidden_size"},
        implied=gguf_implied.falcon,
        layout={**parts.ENDS, **parts.FUSED, **parts.MLP, **parts.FALCON_NORMS},
    ),
    "stablelm": Architecture(
        model_type="stablelm",
        required={"layer_norm_eps": LAYER_EPSILON},
        optional={"use_parallel_residual": ("use_parallel_residual", bool)},
        fixed={"hidden_act": "silu"},
        present={"use_qkv_bias": "blk.0.attn_q.bias", "qk_layernorm": "blk.0.attn_q_norm.weight"},
        rotated="partial_rotary_factor",
        layout={**parts.PLAIN, **parts.GATED, **parts.QK_NORMS_OF_EACH_HEAD},
    ),
    "command-r": Architecture(
        model_type="cohere",
        required={
            "layer_norm_eps": LAYER_EPSILON,
            "logit_scale": ("logit_scale", float),
        },
        fixed={"hidden_act": "silu"},
        present={"attention_bias": "blk.0.attn_q.bias", "use_qk_norm": "blk.0.attn_q_norm.weight"},
        layout={
            **parts.ENDS,
            **parts.PERMUTED,
            **parts.GATED,
            f"{parts.B}.attn_norm": f"{L}.input_layernorm",
            **parts.PERMUTED_QK_NORMS,
        },
    ),
    "cohere2": Architecture(
        model_type="cohere2",
        required={
            "layer_norm_eps": LAYER_EPSILON,
            "logit_scale": ("logit_scale", float),
            **WINDOW,
        },
        fixed={"hidden_act": "silu"},
        present={"attention_bias": "blk.0.attn_q.bias"},
        layout={
            **parts.ENDS,
            **parts.PERMUTED,
            **parts.GATED,
            f"{parts.B}.attn_norm": f"{L}.input_layernorm",
        },
    ),
    "lfm2": Architecture(
        model_type="lfm2",
        required={"norm_eps": RMS["rms_norm_eps"], "conv_L_cache": ("shortconv.l_cache", int)},
        fixed={"block_auto_adjust_ff_dim": False},
        without_heads="conv",
        layout=parts.SHORT_CONVOLUTIONS,
    ),
    "gpt-oss": Architecture(
        model_type="gpt_oss",
        required={
            **RMS,
            **EXPERTS,
            **WINDOW,
            "intermediate_size": ("expert_feed_forward_length", int),
        },
        fixed={"hidden_act": "silu"},
        implied=gguf_implied.gpt_oss,
        layout={
            **parts.ENDS,
            **parts.ATTENTION,
            **parts.MIXTURE,
            **parts.EXPERT_BIASES,
            f"{parts.B}.attn_norm": f"{L}.input_layernorm",
            f"{parts.B}.post_attention_norm": f"{L}.post_attention_layernorm",
            f"{parts.B}.attn_sinks.weight": f"{L}.self_attn.sinks",
        },
    ),
}

DESCRIPTIVE = frozenset({"tensor_data_layout", "vocab_size", "rope.scaling.finetuned"})
"""Keys that say nothing the tensors do not: the vocabulary is as large as its embedding."""
