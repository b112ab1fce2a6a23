"""Which canonical tensors GGUF's stems stand for, a part of a network at a time.

Tables only, put together in `gguf_architectures.py`. Stems are those of llama.cpp's
`gguf-py/gguf/constants.py`.
"""

from sardonyx.export.checkpoint import LazyTensor
from sardonyx.export.checkpoint.huggingface_layouts import CONVOLVED, DOWN, GATES, QKV, L, equal_thirds
from sardonyx.export.checkpoint.layouts import (
    Config,
    Layout,
    Pieces,
    deinterleaved,
    flat,
    of_each_expert,
    split,
)

B = "blk.*"
ENDS: Layout = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
ATTENTION: Layout = {
    f"{B}.attn_q": QKV[0],
    f"{B}.attn_k": QKV[1],
    f"{B}.attn_v": QKV[2],
    f"{B}.attn_output": f"{L}.self_attn.o_proj",
}
PERMUTED: Layout = {
    **ATTENTION,
    f"{B}.attn_q": deinterleaved(QKV[0], "num_attention_heads"),
    f"{B}.attn_k": deinterleaved(QKV[1], "num_key_value_heads"),
}
QK_NORMS: Layout = {
    f"{B}.attn_q_norm": f"{L}.self_attn.q_norm",
    f"{B}.attn_k_norm": f"{L}.self_attn.k_norm",
}
MLP: Layout = {f"{B}.ffn_up": f"{L}.mlp.up_proj", f"{B}.ffn_down": f"{L}.mlp.down_proj"}
GATED: Layout = {**MLP, f"{B}.ffn_gate": f"{L}.mlp.gate_proj"}
MIXTURE: Layout = {
    f"{B}.ffn_gate_inp": f"{L}.mlp.gate",
    f"{B}.ffn_gate_exps.weight": of_each_expert(GATES[0]),
    f"{B}.ffn_up_exps.weight": of_each_expert(GATES[1]),
    f"{B}.ffn_down_exps.weight": of_each_expert(DOWN),
}
EXPERT_BIASES: Layout = {
    f"{B}.ffn_gate_exps.bias": of_each_expert(GATES[0], "bias"),
    f"{B}.ffn_up_exps.bias": of_each_expert(GATES[1], "bias"),
    f"{B}.ffn_down_exps.bias": of_each_expert(DOWN, "bias"),
}
PRE_NORMS: Layout = {
    f"{B}.attn_norm": f"{L}.input_layernorm",
    f"{B}.ffn_norm": f"{L}.post_attention_layernorm",
}
PLAIN: Layout = {**ENDS, **PRE_NORMS, **ATTENTION}
SANDWICH_NORMS: Layout = {
    f"{B}.attn_norm": f"{L}.input_layernorm",
    f"{B}.post_attention_norm": f"{L}.post_attention_layernorm",
    f"{B}.ffn_norm": f"{L}.pre_feedforward_layernorm",
    f"{B}.post_ffw_norm": f"{L}.post_feedforward_layernorm",
}


def head_rows(config: Config) -> tuple[int, tuple[int, int]]:
    """Rows of queries and of keys, where values follow."""
    width = config["head_dim"]
    return 1, (config["num_attention_heads"] * width, config["num_key_value_heads"] * width)


def gate_rows(config: Config) -> tuple[int, tuple[int]]:
    return 1, (config["intermediate_size"],)


def falcon_norm(tensor: LazyTensor, config: Config) -> Pieces:
    """Where there are two, the first is the feed-forward's."""
    name = "post_attention_layernorm" if config["second_norm"] else "input_layernorm"
    return [(f"{L}.{name}", tensor)]


FUSED: Layout = {f"{B}.attn_qkv": split(head_rows, *QKV), f"{B}.attn_output": f"{L}.self_attn.o_proj"}
FUSED_GATES: Layout = {
    f"{B}.ffn_up": split(gate_rows, f"{L}.mlp.gate_proj", f"{L}.mlp.up_proj"),
    f"{B}.ffn_down": f"{L}.mlp.down_proj",
}
QK_NORMS_OF_EACH_HEAD: Layout = {
    f"{B}.attn_q_norm": flat(f"{L}.self_attn.q_norm"),
    f"{B}.attn_k_norm": flat(f"{L}.self_attn.k_norm"),
}
PERMUTED_QK_NORMS: Layout = {
    f"{B}.attn_q_norm": deinterleaved(f"{L}.self_attn.q_norm", "num_attention_heads", flat=True),
    f"{B}.attn_k_norm": deinterleaved(f"{L}.self_attn.k_norm", "num_key_value_heads", flat=True),
}
SHORT_CONVOLUTIONS: Layout = {
    **PLAIN,
    **QK_NORMS,
    **GATED,
    "token_embd_norm": "model.norm",
    f"{B}.shortconv.conv": f"{L}.conv.conv",
    f"{B}.shortconv.in_proj": split(equal_thirds, *CONVOLVED),
    f"{B}.shortconv.out_proj": f"{L}.conv.out_proj",
}
EXPERTS_APART: Layout = {
    f"{B}.ffn_gate.*": GATES[0],
    f"{B}.ffn_up.*": GATES[1],
    f"{B}.ffn_down.*": DOWN,
}
FALCON_NORMS: Layout = {f"{B}.attn_norm": falcon_norm, f"{B}.attn_norm_2": f"{L}.input_layernorm"}
