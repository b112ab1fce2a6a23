"""Little GGUF files of any architecture, as llama.cpp's converter would write them.

Names of tensors come from the `gguf` package's own map of Hugging Face names, not from the tables that the
reader has. What the converter does to tensors is done here once more: q and k permuted, experts stacked,
queries, keys and values in one.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from checkpoint_files import Floats, interleaved, write_gguf
from random_models import ArrayCheckpoint
from sardonyx.models import architectures

Arrays = Mapping[str, Floats]
Config = Mapping[str, Any]

OVERRIDES: Mapping[str, Config] = {
    "cohere2": {"layer_types": None, "num_hidden_layers": 4},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3_text": {"query_pre_attn_scalar": 16, "sliding_window_pattern": 6, "num_hidden_layers": 6},
    "mixtral": {"rope_theta": 1e6},
    "qwen3_moe": {"mlp_only_layers": []},
    "starcoder2": {"sliding_window": None},
}
"""What llama.cpp has in its code instead of its files."""

ARCHITECTURES: Mapping[str, tuple[str, Callable[[Config], Mapping[str, Any]]]] = {
    "cohere": ("command-r", lambda c: {"logit_scale": c["logit_scale"], "rope.scaling.type": "none"}),
    "cohere2": (
        "cohere2",
        lambda c: {"logit_scale": c["logit_scale"], **_window(c), "rope.dimension_count": 16},
    ),
    "falcon": ("falcon", lambda c: {"attention.head_count_kv": c.get("num_kv_heads", 1)}),
    "gemma": ("gemma", lambda c: {}),
    "gemma2": (
        "gemma2",
        lambda c: {
            **_window(c),
            "attn_logit_softcapping": c["attn_logit_softcapping"],
            "final_logit_softcapping": c["final_logit_softcapping"],
        },
    ),
    "gemma3_text": ("gemma3", lambda c: _window(c)),
    "gpt2": ("gpt2", lambda c: {}),
    "gpt_neox": ("gptneox", lambda c: {"use_parallel_residual": True, "rope.dimension_count": 16}),
    "gpt_oss": (
        "gpt-oss",
        lambda c: {
            **_window(c),
            **_experts(c["num_local_experts"]),
            "expert_feed_forward_length": c["intermediate_size"],
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": c["rope_scaling"]["factor"],
            "rope.scaling.original_context_length": c["rope_scaling"]["original_max_position_embeddings"],
        },
    ),
    "granite": (
        "granite",
        lambda c: {
            "attention.scale": c["attention_multiplier"],
            "embedding_scale": c["embedding_multiplier"],
            "residual_scale": c["residual_multiplier"],
            "logit_scale": c["logits_scaling"],
        },
    ),
    "lfm2": (
        "lfm2",
        lambda c: {
            "shortconv.l_cache": c["conv_L_cache"],
            "attention.head_count_kv": [
                c["num_key_value_heads"] if kind == "full_attention" else 0 for kind in c["layer_types"]
            ],
        },
    ),
    "llama": ("llama", lambda c: {}),
    "mixtral": ("llama", lambda c: _experts(c["num_local_experts"])),
    "olmo2": ("olmo2", lambda c: {}),
    "phi3": (
        "phi3",
        lambda c: {
            "attention.sliding_window": c["sliding_window"] or 0,
            "rope.dimension_count": 16,
            "rope.scaling.original_context_length": c["original_max_position_embeddings"],
        },
    ),
    "qwen2": ("qwen2", lambda c: {}),
    "qwen3": ("qwen3", lambda c: {}),
    "qwen3_moe": (
        "qwen3moe",
        lambda c: {**_experts(c["num_experts"]), "expert_feed_forward_length": c["moe_intermediate_size"]},
    ),
    "smollm3": ("smollm3", lambda c: {}),
    "stablelm": ("stablelm", lambda c: {"use_parallel_residual": False, "rope.dimension_count": 16}),
    "starcoder2": ("starcoder2", lambda c: {}),
}
"""By model_type: llama.cpp's name, and the metadata that it has beyond sizes."""

FUSED = {"falcon", "gpt2", "gpt_neox", "phi3"}
PERMUTED = {"granite", "llama", "mixtral", "smollm3"}
STORED_INTERLEAVED = {"cohere", "cohere2"}
"""Interleaved in Hugging Face's files too."""


def config_of(model_type: str) -> dict[str, Any]:
    """The EXAMPLE, as far as a GGUF file can say it."""
    return {**architectures()[model_type].EXAMPLE, **OVERRIDES.get(model_type, {})}


def write_model(path: Path, checkpoint: ArrayCheckpoint) -> Path:
    """A checkpoint of canonical names as a GGUF file."""
    config = checkpoint.config
    name, extra = ARCHITECTURES[config["model_type"]]
    arch = next(arch for arch, known in gguf.MODEL_ARCH_NAMES.items() if known == name)
    metadata = {f"{name}.{key}": value for key, value in {**_sizes(config), **extra(config)}.items()}
    names = gguf.get_tensor_name_map(arch, 9)
    tensors = {}
    for stem_name, array in _converted(checkpoint.arrays, config).items():
        found = names.get_name(stem_name, try_suffixes=(".weight", ".bias"))
        assert found is not None, f"{stem_name} has no name in {name}"
        tensors[found] = array
    for key, values in (config.get("rope_scaling") or {}).items():
        if key in ("long_factor", "short_factor"):
            tensors[f"rope_factors_{key.partition('_')[0]}.weight"] = np.array(values, np.float32)
    return write_gguf(path, tensors, metadata, architecture=name)


def _sizes(config: Config) -> dict[str, Any]:
    def first(*fields: str) -> Any:
        return next((config[field] for field in fields if config.get(field) is not None), None)

    hidden, heads = first("hidden_size", "n_embd"), first("num_attention_heads", "n_head")
    sizes = {
        "context_length": first("max_position_embeddings", "n_positions"),
        "embedding_length": hidden,
        "block_count": first("num_hidden_layers", "n_layer"),
        "feed_forward_length": first("intermediate_size", "n_inner", "ffn_hidden_size"),
        "attention.head_count": heads,
        "attention.head_count_kv": first("num_key_value_heads"),
        "attention.layer_norm_rms_epsilon": first("rms_norm_eps", "norm_eps"),
        "attention.layer_norm_epsilon": first("layer_norm_eps", "norm_epsilon", "layer_norm_epsilon"),
        "rope.freq_base": first("rope_theta", "rotary_emb_base"),
        "attention.key_length": first("head_dim"),
        "attention.value_length": first("head_dim"),
        "vocab_size": config["vocab_size"],
    }
    if sizes["rope.freq_base"] is not None:
        sizes["rope.freq_base"] = float(sizes["rope.freq_base"])
    return {key: value for key, value in sizes.items() if value is not None}


def _window(config: Config) -> dict[str, int]:
    return {"attention.sliding_window": config["sliding_window"]}


def _experts(count: int) -> dict[str, int]:
    return {"expert_count": count, "expert_used_count": 2}


def _converted(arrays: Arrays, config: Config) -> dict[str, Floats]:
    """By Hugging Face's names, but where llama.cpp joins tensors, by a name that its map knows."""
    model_type = config["model_type"]
    result: dict[str, Floats] = {}
    stacks: dict[str, list[Floats]] = {}
    for name, array in arrays.items():
        if part := re.fullmatch(r"(.+\.experts)\.\d+\.(.+)", name):
            stacks.setdefault(f"{part[1]}.{part[2]}", []).append(array)
        elif fused := _fused(name, model_type):
            stacks.setdefault(fused, []).append(array)
        else:
            result[_hugging_face(name, model_type)] = _ordered(name, array, config)
    for name, parts in stacks.items():
        result[name] = np.stack(parts) if ".experts." in name else np.concatenate(parts)
    return result


def _fused(name: str, model_type: str) -> str | None:
    if model_type in FUSED and (part := re.fullmatch(r"(.+\.self_attn)\.[qkv]_proj\.(\w+)", name)):
        return f"{part[1].replace('self_attn', 'attention')}.query_key_value.{part[2]}".replace(
            "model.layers", "gpt_neox.layers"
        )
    if model_type == "lfm2" and (part := re.fullmatch(r"(.+\.conv)\.[bcx]_proj\.(\w+)", name)):
        return f"{part[1]}.in_proj.{part[2]}"
    if model_type == "phi3" and (part := re.fullmatch(r"(.+\.mlp)\.(gate|up)_proj\.weight", name)):
        return f"{part[1]}.gate_up_proj.weight"
    return None


def _hugging_face(name: str, model_type: str) -> str:
    if model_type == "gpt2":
        name = name.replace("model.embed_positions", "transformer.wpe")
    if model_type == "gpt_oss":
        name = name.replace("mlp.gate.", "mlp.router.")
    if model_type == "lfm2":
        name = re.sub(r"model\.norm\b", "model.embedding_norm", name)
    if model_type == "stablelm":
        name = re.sub(r"([qk])_norm", r"\1_layernorm", name)
    if name.endswith("sinks"):
        name += ".weight"
    return name


def _ordered(name: str, array: Floats, config: Config) -> Floats:
    """q and k in the order of interleaved rotary, and norms of each head as `[heads, width]`."""
    part = re.search(r"\.([qk])_(proj|norm)\.", name)
    if not part:
        return array
    heads = config["num_attention_heads" if part[1] == "q" else "num_key_value_heads"]
    if config["model_type"] in PERMUTED | STORED_INTERLEAVED:
        array = interleaved(array, heads)
    of_each_head = part[2] == "norm" and config["model_type"] in ("cohere", "stablelm")
    return array.reshape(heads, -1) if of_each_head else array
