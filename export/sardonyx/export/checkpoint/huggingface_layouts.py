"""Where Hugging Face checkpoints spell tensors otherwise than Llama's: one table per model_type.

Tables only: what they mean is in `layouts.py`. An architecture that is not here has canonical names already.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sardonyx.export.checkpoint.layouts import (
    Config,
    Layout,
    deinterleaved,
    of_each_expert,
    plus_one,
    split,
    squeezed,
    turned,
    unused,
)
from sardonyx.models.config import flag, integer

L = "model.layers.*"
QKV = (f"{L}.self_attn.q_proj", f"{L}.self_attn.k_proj", f"{L}.self_attn.v_proj")
GATES = (f"{L}.mlp.experts.*.gate_proj", f"{L}.mlp.experts.*.up_proj")
CONVOLVED = (f"{L}.conv.b_proj", f"{L}.conv.c_proj", f"{L}.conv.x_proj")
DOWN = f"{L}.mlp.experts.*.down_proj"
NORMS = (f"{L}.input_layernorm", f"{L}.post_attention_layernorm", "model.norm")
SANDWICH_NORMS = (*NORMS, f"{L}.pre_feedforward_layernorm", f"{L}.post_feedforward_layernorm")


@dataclass(frozen=True)
class Spelling:
    """How one architecture names its tensors."""

    base: str = "model"
    """Prefix of all but the head; a checkpoint of the base model alone lacks it."""
    layout: Layout = field(default_factory=dict)


def _queries_keys(config: Config) -> tuple[int, Iterable[int]]:
    """Rows of queries and of keys, where values follow."""
    heads = integer(config, "num_attention_heads")
    width = integer(config, "head_dim", integer(config, "hidden_size") // heads)
    return 1, (heads * width, integer(config, "num_key_value_heads", heads) * width)


def _gates(config: Config) -> tuple[int, Iterable[int]]:
    return 1, (integer(config, "intermediate_size"),)


def _turns(config: Config) -> tuple[int, Iterable[int]]:
    """Gate and up, row by row."""
    return integer(config, "intermediate_size"), (1,)


def _thirds(config: Config) -> tuple[int, Iterable[int]]:
    width = integer(config, "n_embd")
    return 1, (width, width)


def equal_thirds(config: Config) -> tuple[int, Iterable[int]]:
    width = integer(config, "hidden_size")
    return 1, (width, width)


def _of_each_head(config: Config) -> tuple[int, Iterable[int]]:
    """Query, key and value head by head."""
    heads = integer(config, "num_attention_heads")
    width = integer(config, "hidden_size") // heads
    return heads, (width, width)


def _falcon(config: Config) -> tuple[int, Iterable[int]]:
    """By groups of queries with their key and value; or all queries, one key, one value; or head by head."""
    heads = integer(config, "num_attention_heads")
    width = integer(config, "hidden_size") // heads
    if flag(config, "new_decoder_architecture", False):
        groups = integer(config, "num_kv_heads", heads)
        return groups, (heads // groups * width, width)
    return (1, (heads * width, width)) if flag(config, "multi_query", True) else _of_each_head(config)


_INTERLEAVED: Layout = {
    QKV[0]: deinterleaved(QKV[0], "num_attention_heads"),
    QKV[1]: deinterleaved(QKV[1], "num_key_value_heads"),
}
_QUERY_NORM, _KEY_NORM = f"{L}.self_attn.q_norm", f"{L}.self_attn.k_norm"
_INTERLEAVED_NORMS: Layout = {
    _QUERY_NORM: deinterleaved(_QUERY_NORM, "num_attention_heads", flat=True),
    _KEY_NORM: deinterleaved(_KEY_NORM, "num_key_value_heads", flat=True),
}

SPELLINGS: Mapping[str, Spelling] = {
    "cohere": Spelling(layout={**_INTERLEAVED, **_INTERLEAVED_NORMS}),
    "cohere2": Spelling(layout=_INTERLEAVED),
    "falcon": Spelling(
        base="transformer",
        layout={
            "transformer.word_embeddings": "model.embed_tokens",
            "transformer.ln_f": "model.norm",
            "transformer.h.*.self_attention.query_key_value": split(_falcon, *QKV),
            "transformer.h.*.self_attention.dense": f"{L}.self_attn.o_proj",
            "transformer.h.*.mlp.dense_h_to_4h": f"{L}.mlp.up_proj",
            "transformer.h.*.mlp.dense_4h_to_h": f"{L}.mlp.down_proj",
            "transformer.h.*.input_layernorm": f"{L}.input_layernorm",
            "transformer.h.*.post_attention_layernorm": f"{L}.post_attention_layernorm",
            "transformer.h.*.ln_attn": f"{L}.input_layernorm",
            "transformer.h.*.ln_mlp": f"{L}.post_attention_layernorm",
        },
    ),
    "gemma": Spelling(layout=plus_one(*NORMS)),
    "gemma2": Spelling(layout=plus_one(*SANDWICH_NORMS)),
    "gemma3_text": Spelling(layout=plus_one(*SANDWICH_NORMS, _QUERY_NORM, _KEY_NORM)),
    "gpt2": Spelling(
        base="transformer",
        layout={
            "transformer.wte": "model.embed_tokens",
            "transformer.wpe": "model.embed_positions",
            "transformer.ln_f": "model.norm",
            "transformer.h.*.ln_1": f"{L}.input_layernorm",
            "transformer.h.*.ln_2": f"{L}.post_attention_layernorm",
            "transformer.h.*.attn.c_attn": turned(split(_thirds, *QKV)),
            "transformer.h.*.attn.c_proj": turned(f"{L}.self_attn.o_proj"),
            "transformer.h.*.mlp.c_fc": turned(f"{L}.mlp.up_proj"),
            "transformer.h.*.mlp.c_proj": turned(f"{L}.mlp.down_proj"),
            "transformer.h.*.attn.bias": unused,
            "transformer.h.*.attn.masked_bias": unused,
        },
    ),
    "gpt_neox": Spelling(
        base="gpt_neox",
        layout={
            "embed_out": "lm_head",
            "gpt_neox.embed_in": "model.embed_tokens",
            "gpt_neox.final_layer_norm": "model.norm",
            "gpt_neox.layers.*.input_layernorm": f"{L}.input_layernorm",
            "gpt_neox.layers.*.post_attention_layernorm": f"{L}.post_attention_layernorm",
            "gpt_neox.layers.*.attention.query_key_value": split(_of_each_head, *QKV),
            "gpt_neox.layers.*.attention.dense": f"{L}.self_attn.o_proj",
            "gpt_neox.layers.*.mlp.dense_h_to_4h": f"{L}.mlp.up_proj",
            "gpt_neox.layers.*.mlp.dense_4h_to_h": f"{L}.mlp.down_proj",
            "gpt_neox.layers.*.attention.bias": unused,
            "gpt_neox.layers.*.attention.masked_bias": unused,
        },
    ),
    "gpt_oss": Spelling(
        layout={
            f"{L}.mlp.router": f"{L}.mlp.gate",
            f"{L}.mlp.experts.gate_up_proj": of_each_expert(turned(split(_turns, *GATES))),
            f"{L}.mlp.experts.gate_up_proj_bias": of_each_expert(split(_turns, *GATES), "bias"),
            f"{L}.mlp.experts.down_proj": of_each_expert(turned(DOWN)),
            f"{L}.mlp.experts.down_proj_bias": of_each_expert(DOWN, "bias"),
        }
    ),
    "lfm2": Spelling(
        layout={
            "model.embedding_norm": "model.norm",
            f"{L}.operator_norm": f"{L}.input_layernorm",
            f"{L}.ffn_norm": f"{L}.post_attention_layernorm",
            f"{L}.self_attn.out_proj": f"{L}.self_attn.o_proj",
            f"{L}.self_attn.q_layernorm": _QUERY_NORM,
            f"{L}.self_attn.k_layernorm": _KEY_NORM,
            f"{L}.feed_forward.w1": f"{L}.mlp.gate_proj",
            f"{L}.feed_forward.w3": f"{L}.mlp.up_proj",
            f"{L}.feed_forward.w2": f"{L}.mlp.down_proj",
            f"{L}.conv.in_proj": split(equal_thirds, *CONVOLVED),
            f"{L}.conv.conv.weight": squeezed(f"{L}.conv.conv.weight"),
        }
    ),
    "mixtral": Spelling(
        layout={
            f"{L}.block_sparse_moe.gate": f"{L}.mlp.gate",
            f"{L}.block_sparse_moe.experts.*.w1": GATES[0],
            f"{L}.block_sparse_moe.experts.*.w3": GATES[1],
            f"{L}.block_sparse_moe.experts.*.w2": DOWN,
        }
    ),
    "phi3": Spelling(
        layout={
            f"{L}.self_attn.qkv_proj": split(_queries_keys, *QKV),
            f"{L}.mlp.gate_up_proj": split(_gates, f"{L}.mlp.gate_proj", f"{L}.mlp.up_proj"),
        }
    ),
    "stablelm": Spelling(
        layout={
            f"{L}.self_attn.q_layernorm.norms.*": f"{L}.self_attn.q_norm",
            f"{L}.self_attn.k_layernorm.norms.*": f"{L}.self_attn.k_norm",
        }
    ),
    "starcoder2": Spelling(
        layout={
            f"{L}.mlp.c_fc": f"{L}.mlp.up_proj",
            f"{L}.mlp.c_proj": f"{L}.mlp.down_proj",
        }
    ),
}
