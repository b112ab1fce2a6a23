"""Small checkpoint files for the tests of the readers, written with the formats' own libraries."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

WIDTH, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, VOCAB = 64, 4, 2, 16, 96, 40

Floats = NDArray[np.float32]


def random(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def interleaved(rows: Floats, heads: int) -> Floats:
    """As llama.cpp's converter stores q and k (`convert_hf_to_gguf.py`, LlamaModel.permute)."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def llama_tensors(*, head: bool = False, bias: bool = False) -> dict[str, Floats]:
    """One block of a llama by Hugging Face's names."""
    layer = "model.layers.0"
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, WIDTH),
        "model.norm.weight": (WIDTH,),
        f"{layer}.input_layernorm.weight": (WIDTH,),
        f"{layer}.post_attention_layernorm.weight": (WIDTH,),
        f"{layer}.self_attn.q_proj.weight": (HEADS * HEAD_DIM, WIDTH),
        f"{layer}.self_attn.k_proj.weight": (KV_HEADS * HEAD_DIM, WIDTH),
        f"{layer}.self_attn.v_proj.weight": (KV_HEADS * HEAD_DIM, WIDTH),
        f"{layer}.self_attn.o_proj.weight": (WIDTH, HEADS * HEAD_DIM),
        f"{layer}.mlp.gate_proj.weight": (HIDDEN, WIDTH),
        f"{layer}.mlp.up_proj.weight": (HIDDEN, WIDTH),
        f"{layer}.mlp.down_proj.weight": (WIDTH, HIDDEN),
    }
    if head:
        shapes["lm_head.weight"] = (VOCAB, WIDTH)
    if bias:
        shapes |= {f"{layer}.self_attn.{x}_proj.bias": (KV_HEADS * HEAD_DIM,) for x in "kv"}
        shapes[f"{layer}.self_attn.q_proj.bias"] = (HEADS * HEAD_DIM,)
    return {name: random(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}


GGUF_STEMS = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
LLAMA_METADATA: Mapping[str, Any] = {
    "llama.block_count": 1,
    "llama.context_length": 128,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": HIDDEN,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": HEAD_DIM,
    "llama.vocab_size": VOCAB,
}


def gguf_tensors(tensors: Mapping[str, Floats]) -> dict[str, Floats]:
    """The same tensors by llama.cpp's names and in its order."""
    result = {}
    for name, values in tensors.items():
        heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(name.split(".")[-2])
        stem, _, suffix = name.removeprefix("model.layers.0.").rpartition(".")
        prefix = "blk.0." if name.startswith("model.layers.0.") else ""
        result[f"{prefix}{GGUF_STEMS[stem]}.{suffix}"] = interleaved(values, heads) if heads else values
    return result


def write_gguf(
    path: Path,
    tensors: Mapping[str, Floats],
    metadata: Mapping[str, Any],
    kinds: Mapping[str, Kind] | None = None,
    architecture: str = "llama",
) -> Path:
    """A GGUF file. Integers become 32-bit, floats 32-bit, lists arrays; `kinds` are types other than F32."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    for name, values in tensors.items():
        kind = (kinds or {}).get(name, Kind.F32)
        stored = stored_as(values, kind)
        writer.add_tensor(name, stored, raw_dtype=kind if stored.dtype == np.uint8 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def stored_as(values: Floats, kind: Kind) -> NDArray[Any]:
    """What a file holds for `values`, unless they are bytes: then that. The package writes no k-quants: those
    are any bytes of that size.
    """
    if values.dtype == np.uint8:
        return values
    try:
        return gguf.quants.quantize(values, kind)
    except NotImplementedError:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        shape = (*values.shape[:-1], values.shape[-1] // block * size)
        return np.random.default_rng(1).integers(0, 56, shape, dtype=np.uint8)  # no scale becomes NaN


def write_llama(path: Path, metadata: Mapping[str, Any] | None = None, *, head: bool = False) -> Path:
    """A whole little llama as GGUF, without a tokenizer unless `metadata` has one."""
    return write_gguf(path, gguf_tensors(llama_tensors(head=head)), {**LLAMA_METADATA, **(metadata or {})})


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False), "utf-8")
    return path
