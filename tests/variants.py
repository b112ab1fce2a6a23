"""What configurations of an architecture may differ in, beyond its EXAMPLE: overrides, by a name for reports.

A field set to None is null in the file. An architecture that is not listed is tested on its EXAMPLE alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sardonyx.models import architectures

Config = Mapping[str, Any]

LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
ODD_SIZES = {"hidden_size": 40, "num_attention_heads": 3, "num_key_value_heads": 1, "vocab_size": 130}
"""Heads that are wider together than the hidden size, one of them with keys."""

VARIANTS: Mapping[str, Mapping[str, Config]] = {
    "llama": {
        "width from hidden": {"hidden_size": 96, "head_dim": None, "num_key_value_heads": None},
        "one kv head, untied": {"num_key_value_heads": 1, "tie_word_embeddings": False, "vocab_size": 130},
        "three kv heads, attention bias": {"num_key_value_heads": 3, "attention_bias": True},
        "mlp bias, untied": {"mlp_bias": True, "tie_word_embeddings": False, "vocab_size": 64},
        "both biases, wide heads": {"attention_bias": True, "mlp_bias": True, "head_dim": 32},
        "odd heads": {"head_dim": 10},
        "heads of 24, gelu": {"head_dim": 24, "hidden_act": "gelu", "num_key_value_heads": 3},
        "rope default": {"rope_scaling": {"rope_type": "default"}, "rope_theta": 500000.0},
        "rope linear": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "head_dim": 32},
        "rope dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
        "rope llama3": {"rope_scaling": LLAMA3_SCALING, "rope_theta": 500000.0, "head_dim": 64},
        "rope yarn": {"rope_scaling": YARN, "head_dim": 64},
        "rope yarn, all said": {
            "rope_scaling": {**YARN, "attention_factor": 0.9, "beta_fast": 8.0, "beta_slow": 2.0},
            "head_dim": 32,
        },
        "rope yarn, magnitudes": {
            "rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.2, "truncate": False},
        },
    },
    "mistral": {
        "no window, odd sizes": {"sliding_window": None, "head_dim": 16, **ODD_SIZES},
        "width from hidden, tied": {"head_dim": None, "hidden_size": 96, "tie_word_embeddings": True},
        "window of one": {"sliding_window": 1},
        "window beyond the context": {"sliding_window": 4096},
    },
    "ministral": {
        "all windows": {"layer_types": None, "sliding_window": 7},
        "no windows, odd sizes": {"layer_types": ["full_attention"] * 3, **ODD_SIZES},
    },
    "qwen2": {
        "odd sizes, untied": {"head_dim": 16, "tie_word_embeddings": False, **ODD_SIZES},
        "windows from layer 1": {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
        "windows by type": {
            "use_sliding_window": True,
            "sliding_window": 9,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        "heads of 8, yarn": {"hidden_size": 48, "rope_scaling": YARN},
    },
    "qwen3": {
        "odd sizes, untied, biased": {"attention_bias": True, "tie_word_embeddings": False, **ODD_SIZES},
        "odd heads": {"head_dim": 24, "num_key_value_heads": 3},
        "windows from layer 1": {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    },
    "smollm3": {
        "stated, biased, untied": {
            "no_rope_layers": [0, 1, 1, 0],
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": False,
            **ODD_SIZES,
        },
        "windows without rope": {"use_sliding_window": True, "sliding_window": 9},
        "odd heads": {"head_dim": 20},
    },
    "olmo2": {
        "biased, odd sizes, tied": {"attention_bias": True, "tie_word_embeddings": True, **ODD_SIZES},
        "three kv heads, rope linear": {
            "num_key_value_heads": 3,
            "rope_scaling": {"type": "linear", "factor": 2.0},
        },
    },
    "cohere": {
        "plain, untied": {"use_qk_norm": False, "tie_word_embeddings": False, "logit_scale": 1.0},
        "biased, three kv heads": {"attention_bias": True, "num_key_value_heads": 3, "vocab_size": 130},
        "odd heads": {"hidden_size": 60},
    },
    "cohere2": {
        "by pattern, biased": {
            "layer_types": None,
            "sliding_window_pattern": 2,
            "attention_bias": True,
            "num_key_value_heads": 3,
        },
        "odd heads, untied": {"hidden_size": 60, "tie_word_embeddings": False},
    },
    "falcon": {
        "40B": {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True},
        "11B": {"new_decoder_architecture": True, "num_kv_heads": 3, "num_ln_in_parallel_attn": 1},
        "head by head, one after another": {"multi_query": False, "parallel_attn": False, "bias": True},
        "odd heads, untied": {"hidden_size": 60, "tie_word_embeddings": False, "vocab_size": 130},
    },
    "gemma": {
        "odd sizes, biased, untied": {
            "attention_bias": True,
            "tie_word_embeddings": False,
            "hidden_act": "gelu",
            **ODD_SIZES,
        },
        "rope linear": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    },
    "gemma2": {
        "no caps, odd sizes": {
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            **ODD_SIZES,
        },
        "stated, biased": {
            "attention_bias": True,
            "layer_types": ["full_attention", "full_attention", "sliding_attention"],
            "num_key_value_heads": 3,
        },
    },
    "gemma3_text": {
        "scaled, capped": {
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "final_logit_softcapping": 3.0,
            "head_dim": 32,
        },
        "stated, odd sizes": {
            "layer_types": ["full_attention", "full_attention", "sliding_attention"],
            "attention_bias": True,
            **ODD_SIZES,
        },
    },
    "gpt2": {
        "no inner, by layer": {"n_inner": None, "scale_attn_by_inverse_layer_idx": True},
        "not scaled, untied": {"scale_attn_weights": False, "tie_word_embeddings": False},
        "odd heads": {"n_embd": 60, "activation_function": "relu", "vocab_size": 130},
    },
    "gpt_neox": {
        "one after another, no bias": {"use_parallel_residual": False, "attention_bias": False},
        "few rotated, tied": {"rotary_pct": 0.25, "hidden_size": 144, "tie_word_embeddings": True},
        "all rotated, linear": {
            "rotary_pct": 1.0,
            "rotary_emb_base": 5000,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        },
    },
    "phi3": {
        "4k": {"rope_scaling": None, "sliding_window": None, "num_key_value_heads": 3},
        "4-mini": {
            "partial_rotary_factor": 0.75,
            "tie_word_embeddings": True,
            "num_key_value_heads": 1,
            "hidden_size": 192,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0] * 12,
                "long_factor": [1.0 + i / 4 for i in range(12)],
            },
        },
        "short": {"original_max_position_embeddings": 128},
    },
    "stablelm": {
        "plain": {"qk_layernorm": False, "use_qkv_bias": False, "partial_rotary_factor": 0.25},
        "side by side, tied": {"use_parallel_residual": True, "tie_word_embeddings": True},
        "3B": {"hidden_size": 240, "partial_rotary_factor": 0.25, "num_key_value_heads": 6},
    },
    "starcoder2": {
        "no bias, no window": {"use_bias": False, "sliding_window": None},
        "odd sizes, untied": {"tie_word_embeddings": False, **ODD_SIZES},
    },
    "gpt_oss": {
        "stated, one expert": {
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "num_experts_per_tok": 1,
        },
        "odd sizes, tied": {"tie_word_embeddings": True, "intermediate_size": 40, **ODD_SIZES},
    },
    "mixtral": {
        "window, tied": {"sliding_window": 9, "tie_word_embeddings": True},
        "odd sizes, all experts": {"num_experts_per_tok": 4, **ODD_SIZES},
    },
    "qwen3_moe": {
        "shares of all, every other layer": {
            "norm_topk_prob": False,
            "mlp_only_layers": [],
            "decoder_sparse_step": 2,
        },
        "biased, windows, odd sizes": {
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 9,
            **ODD_SIZES,
        },
    },
    "lfm2": {
        "biased, four taps, by index, untied": {
            "layer_types": None,
            "full_attn_idxs": [0, 2],
            "conv_bias": True,
            "conv_L_cache": 4,
            "tie_word_embeddings": False,
        },
        "adjusted width, one tap": {
            "block_auto_adjust_ff_dim": True,
            "block_multiple_of": 16,
            "block_ffn_dim_multiplier": 1.3,
            "conv_L_cache": 1,
            "num_key_value_heads": 3,
        },
    },
    "granite": {
        "all one": {
            "embedding_multiplier": 1.0,
            "attention_multiplier": 1.0,
            "residual_multiplier": 1.0,
            "logits_scaling": 1.0,
        },
        "biased, odd sizes, untied": {
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": False,
            **ODD_SIZES,
        },
    },
}


def configs() -> Iterator[tuple[str, Config]]:
    """Every architecture's EXAMPLE and its variants, each with a name."""
    for model_type, module in architectures().items():
        yield model_type, module.EXAMPLE
        for name, overrides in VARIANTS.get(model_type, {}).items():
            yield f"{model_type}: {name}", {**module.EXAMPLE, **overrides}
