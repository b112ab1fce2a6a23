"""What configurations of an architecture may differ in, beyond its EXAMPLE: overrides, by a name for reports.

A field set to None is left out. An architecture that is not listed is tested on its EXAMPLE alone.
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

VARIANTS: Mapping[str, Mapping[str, Config]] = {
    "llama": {
        "width from hidden": {"hidden_size": 96, "head_dim": None, "num_key_value_heads": None},
        "one kv head, untied": {"num_key_value_heads": 1, "tie_word_embeddings": False, "vocab_size": 130},
        "three kv heads, attention bias": {"num_key_value_heads": 3, "attention_bias": True},
        "mlp bias, untied": {"mlp_bias": True, "tie_word_embeddings": False, "vocab_size": 64},
        "both biases, wide heads": {"attention_bias": True, "mlp_bias": True, "head_dim": 32},
        "rope default": {"rope_scaling": {"rope_type": "default"}, "rope_theta": 500000.0},
        "rope linear": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "head_dim": 32},
        "rope llama3": {"rope_scaling": LLAMA3_SCALING, "rope_theta": 500000.0, "head_dim": 64},
    },
}


def configs() -> Iterator[tuple[str, Config]]:
    """Every architecture's EXAMPLE and its variants, each with a name."""
    for model_type, module in architectures().items():
        yield model_type, module.EXAMPLE
        for name, overrides in VARIANTS.get(model_type, {}).items():
            config = {**module.EXAMPLE, **overrides}
            yield f"{model_type}: {name}", {k: v for k, v in config.items() if v is not None}
