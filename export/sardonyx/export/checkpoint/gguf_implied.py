"""What config.json says and GGUF does not: it follows from other fields, as llama.cpp has it in its code.

Functions from the fields that were read to those that follow. They read no file.
"""

from collections.abc import Mapping
from typing import Any

from sardonyx.export.checkpoint.layouts import Config


def _scale(config: Config, layers: int) -> Mapping[str, Any]:
    """No file says it: the largest model of each generation, told by its depth, has a scale of its own."""
    largest = config["num_hidden_layers"] == layers
    share = config["hidden_size"] // config["num_attention_heads"]
    return {"query_pre_attn_scalar": share if largest else config["head_dim"]}


def gemma2(config: Config) -> Mapping[str, Any]:
    return _scale(config, layers=46)


def gemma3(config: Config) -> Mapping[str, Any]:
    return {"rope_local_base_freq": 10000.0, **_scale(config, layers=62)}


def phi3(config: Config) -> Mapping[str, Any]:
    """A window of zero is none."""
    scaling = config["rope_scaling"]
    if scaling and (factor := config.get("attention_factor")):
        scaling = {**scaling, "attention_factor": factor}
    return {"sliding_window": config.get("sliding_window") or None, "rope_scaling": scaling}


def gpt_oss(config: Config) -> Mapping[str, Any]:
    """As it was trained, whatever llama.cpp does."""
    return {"rope_scaling": {**(config["rope_scaling"] or {}), "truncate": False}}


def falcon(config: Config) -> Mapping[str, Any]:
    """One key for all queries is the older architecture, and one norm is the older block."""
    grouped = config["num_key_value_heads"] > 1
    return {
        "new_decoder_architecture": grouped,
        "multi_query": not grouped,
        "num_kv_heads": config["num_key_value_heads"],
        "num_ln_in_parallel_attn": 2 if config.get("second_norm") else 1,
    }
