"""Every block type that recipe `gguf` carries over, on one model: bytes, divergence, decode speed, loading.

    python bench/gguf_blocks.py MODEL.gguf [TYPE ...]

MODEL is a llama without biases, in any type. K-quants come in blocks of 256 weights, so the model is padded
with zero channels and zero heads, which leaves the function as it is; then its weights are rounded to each
type in turn, and that file is exported by both `gguf` and `int4`. The divergence is from float32 on the
weights that the blocks stand for. Decode steps of both recipes alternate in fives, so that whatever else the
machine does hits both.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from sardonyx.export.build import build
from sardonyx.export.checkpoint import open_checkpoint
from sardonyx.export.checkpoint.gguf import GGUFCheckpoint
from sardonyx.export.checkpoint.gguf_blocks import LAYOUTS
from sardonyx.export.divergence import concatenated, summary
from sardonyx.export.recipes import RECIPES
from sardonyx.export.texts import own_texts
from sardonyx.export.verify import diverge
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.llm import LLM, MAPPED
from sardonyx.runtime.manifest import read_manifest
from sardonyx.runtime.model import Model, Step
from sardonyx.runtime.threads import usable_cores

BLOCK = 256
PAST = 128
ROUNDS = 60
WINDOWS = 2
"""Of each kind of text."""

Floats = Any
STEMS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def padded_config(config: dict[str, Any]) -> dict[str, Any]:
    """Sizes of which every width is whole blocks."""
    head, group = config["head_dim"], config["num_attention_heads"] // config["num_key_value_heads"]
    kv_heads = config["num_key_value_heads"]
    while kv_heads * group * head % BLOCK:
        kv_heads += 1
    return {
        **config,
        "hidden_size": -(-config["hidden_size"] // BLOCK) * BLOCK,
        "intermediate_size": -(-config["intermediate_size"] // BLOCK) * BLOCK,
        "num_attention_heads": kv_heads * group,
        "num_key_value_heads": kv_heads,
    }


def padded_tensors(source: GGUFCheckpoint, config: dict[str, Any]) -> Iterator[tuple[str, Floats]]:
    """Tensors by their names in a GGUF, in its order of rows. Norms make up for the zeros that they count."""
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes = {
        "q_proj": (queries, hidden),
        "k_proj": (keys, hidden),
        "v_proj": (keys, hidden),
        "o_proj": (hidden, queries),
        "gate_proj": (config["intermediate_size"], hidden),
        "up_proj": (config["intermediate_size"], hidden),
        "down_proj": (hidden, config["intermediate_size"]),
    }
    for name in sorted(source.names()):
        tensor = source.tensor(name)
        values = tensor.rows(0, tensor.shape[0])
        stem = name.removesuffix(".weight")
        if values.ndim == 1:
            values = np.pad(values, (0, hidden - len(values))) * np.sqrt(len(values) / hidden)
        else:
            shape = shapes.get(stem.split(".")[-1], (len(values), hidden))
            values = np.pad(values, [(0, to - have) for to, have in zip(shape, values.shape, strict=True)])
        if stem.endswith(("q_proj", "k_proj")):  # as llama.cpp stores them, for interleaved rotary
            values = values.reshape(-1, 2, head // 2, hidden).swapaxes(1, 2).reshape(values.shape)
        layer = stem.removeprefix("model.layers.").split(".")[0]
        known = STEMS.get(stem) or f"blk.{layer}.{STEMS[stem.removeprefix(f'model.layers.{layer}.')]}"
        yield f"{known}.weight", values.astype(np.float32)


def write_model(source: GGUFCheckpoint, path: Path, kind: str) -> None:
    """The model with all matrices as one type."""
    config = padded_config(dict(source.config))
    sizes = {
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "rope.dimension_count": config["head_dim"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"]
        * source.config["hidden_size"]
        / config["hidden_size"],
    }
    metadata = {**source.metadata.values, **{f"llama.{key}": value for key, value in sizes.items()}}
    writer = gguf.GGUFWriter(path, "llama")
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in metadata.items():
        if key != "general.architecture":
            add.get(type(value), writer.add_array)(key, value)
    for name, values in padded_tensors(source, config):
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, stored(values, kind), raw_dtype=Kind[kind.upper()])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def stored(values: Floats, kind: str) -> Any:
    """Rows of blocks. The package cannot write K-quants, so those are rounded to nearest here."""
    if LAYOUTS[kind].groups == 1:
        return gguf.quants.quantize(values, Kind[kind.upper()])
    return np.concatenate(
        [_k_quantized(part, kind) for part in np.array_split(values, len(values) // 512 + 1)]
    )


def _k_quantized(values: Floats, kind: str) -> Any:
    layout = LAYOUTS[kind]
    blocks = values.reshape(len(values), -1, layout.groups, layout.width)
    record = np.zeros(blocks.shape[:2], layout.record)
    top = 2**layout.bits - 1
    if layout.affine:
        low = np.minimum(blocks.min(-1), 0)
        steps, minima = (blocks.max(-1) - low) / top, -low
        record["d"], sc = _factors(steps, 63)
        record["dmin"], mn = _factors(minima, 63)
        record["scales"] = np.concatenate(
            [
                sc[..., :4] | sc[..., 4:] >> 4 << 6,
                mn[..., :4] | mn[..., 4:] >> 4 << 6,
                sc[..., 4:] & 15 | (mn[..., 4:] & 15) << 4,
            ],
            -1,
        )
        offset = record["dmin"].astype(np.float32)[..., None] * mn
    else:
        record["d"], sc = _factors(np.abs(blocks).max(-1) / (top // 2), 127)
        record["scales"], offset = sc, 0
    step = record["d"].astype(np.float32)[..., None] * sc
    middle = 0 if layout.affine else (top + 1) // 2
    inverse = np.divide(1, step, out=np.zeros_like(step), where=step > 0)[..., None]
    shift = np.broadcast_to(offset, step.shape)[..., None]
    codes = np.clip(np.rint((blocks + shift) * inverse) + middle, 0, top).astype(np.uint8)
    flat = codes.reshape(*blocks.shape[:2], -1)
    record["qs"] = _fields(flat & 15, layout.low_run, 4)
    if layout.bits > 4:
        record["qh"] = _fields(flat >> 4, layout.high_run, layout.bits - 4)
    return record.view(np.uint8).reshape(len(values), -1)


def _factors(numbers: Floats, most: int) -> tuple[Any, Any]:
    """A half for each block and integers up to `most`, whose products are near the numbers."""
    halves = (numbers.max(-1) / most).astype(np.float16)
    wide = halves.astype(np.float32)[..., None]
    ratio = np.divide(numbers, wide, out=np.zeros_like(numbers), where=wide > 0)
    return halves, np.clip(np.rint(ratio), 0, most).astype(np.uint8)


def _fields(codes: Any, run: int, bits: int) -> Any:
    places = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    runs = codes.reshape(*codes.shape[:-1], -1, 8 // bits, run) << places
    return np.bitwise_or.reduce(runs, axis=-2).reshape(*codes.shape[:-1], -1)


def decode_ratio(folders: list[Path]) -> tuple[float, float]:
    """Speed of the first as a multiple of the second's, median over rounds; the first's best step in ms."""
    tokens = np.random.default_rng(0).integers(300, 10000, PAST + 5 * ROUNDS).tolist()
    models, rows, times = [], [], [[], []]
    for folder in folders:
        manifest = read_manifest(folder)
        models.append(Model(manifest, OrtProgram(folder, manifest, usable_cores())))
        rows.append(models[-1].arena.row())
        models[-1].forward([Step(rows[-1], tokens[:PAST])])
    for turn in range(ROUNDS):
        for which in (0, 1) if turn % 2 else (1, 0):
            steps = []
            for token in tokens[PAST + 5 * turn : PAST + 5 * turn + 5]:
                started = time.perf_counter()
                models[which].forward([Step(rows[which], [token])])
                steps.append(time.perf_counter() - started)
            times[which].append(min(steps))
    return statistics.median(b / a for a, b in zip(*times, strict=True)), min(times[0]) * 1e3


LOADING = """
import json, sys, time
from pathlib import Path
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.manifest import read_manifest
def peak(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
before, started = peak(), time.perf_counter()
OrtProgram(Path(sys.argv[1]), read_manifest(Path(sys.argv[1])), 2)
print(json.dumps([time.perf_counter() - started, peak() - before]))
"""


def loading(folder: Path) -> tuple[float, float]:
    """Seconds, and peak resident memory in MiB."""
    found = subprocess.run([sys.executable, "-c", LOADING, folder], capture_output=True, check=True)
    seconds, peak = json.loads(found.stdout)
    return seconds, peak


def measure(source: GGUFCheckpoint, kind: str, folder: Path) -> tuple[str, ...]:
    model = folder / f"{kind}.gguf"
    write_model(source, model, kind)
    for recipe in ("gguf", "int4", "fp32"):
        (folder / recipe).mkdir()
        rules = replace(RECIPES[recipe], calibrate=False)  # codes are as fast, whichever they are
        build(folder / recipe, open_checkpoint(model), rules)
    llm = LLM.load(folder / "gguf", check=False)
    texts = own_texts(llm)
    texts = replace(texts, windows={k: w[:WINDOWS] for k, w in texts.windows.items()})
    parts = diverge(LLM.load(folder / "fp32", check=False, place=MAPPED), llm, texts)
    quality = summary(concatenated(list(parts.values())), texts.count)
    del llm
    size = sum(file.stat().st_size for file in (folder / "gguf").iterdir())
    ratio, step = decode_ratio([folder / "gguf", folder / "int4"])
    seconds, peak = loading(folder / "gguf")
    return (
        f"{model.stat().st_size / 1e6:.1f}",
        f"{size / model.stat().st_size - 1:+.1%}",
        f"{quality.kl_mean:.5f}",
        f"{quality.kl_mean_error:.5f}",
        f"{quality.top1:.4f}",
        f"{ratio:.2f}",
        f"{step:.2f}",
        f"{seconds:.2f}",
        f"{peak:.0f}",
    )


def main() -> None:
    source = open_checkpoint(Path(sys.argv[1]))
    assert isinstance(source, GGUFCheckpoint)
    print("type | source MB | bytes | mean KL | +- | top-1 | of int4's speed | step ms | load s | peak MiB")
    for kind in sys.argv[2:] or LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            print(kind, *measure(source, kind, Path(folder)), sep=" | ", flush=True)


if __name__ == "__main__":
    main()
