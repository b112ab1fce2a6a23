"""Recipe gguf: every block type, from its bytes to a whole model, against the `gguf` package and numpy."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from checkpoint_files import Floats, interleaved, random, write_gguf
from random_models import random_checkpoint
from sardonyx.export.build import build
from sardonyx.export.checkpoint import Checkpoint, open_checkpoint
from sardonyx.export.checkpoint.gguf_blocks import LAYOUTS
from sardonyx.export.checkpoint.gguf_header import read_header
from sardonyx.export.checkpoint.gguf_tensors import stored_tensors
from sardonyx.export.numpy_graph import NumpyGraph
from sardonyx.export.onnx_builder import OnnxBuilder
from sardonyx.export.quantizers import gguf_blocks
from sardonyx.export.quantizers.gguf_blocks import GGUFBlocks
from sardonyx.export.recipes import RECIPES
from sardonyx.export.weight_file import WeightFile
from sardonyx.export.weights import Matrix
from sardonyx.models import architectures, describe
from sardonyx.models.graph import Weight
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.errors import SourceError
from sardonyx.runtime.manifest import Manifest
from sardonyx.runtime.model import Model, Step

RECIPE = RECIPES["gguf"]
FLOAT_ROUNDING = 1e-5
"""Relative to the sum of magnitudes: float32 additions in any order."""

every_kind = pytest.mark.parametrize("kind", LAYOUTS)


def random_blocks(kind: str, rows: int, columns: int, seed: int = 0) -> Any:
    """Stored rows of any codes and factors, whose scales make weights of about one."""
    layout = LAYOUTS[kind]
    rng = np.random.default_rng(seed)
    blocks = columns // layout.weights
    stored = rng.integers(0, 256, (rows, blocks * layout.record.itemsize), dtype=np.uint8)
    records = layout.records(stored)
    size = 2.0 ** (1 - layout.bits) / (1 if layout.groups == 1 else 32)
    for field in {"d", "m", "dmin"} & layout.fields.keys():
        records[field] = rng.standard_normal((rows, blocks)) * size * (1 if field == "d" else 8)
    return stored


def dequantized(stored: Any, kind: str) -> Floats:
    return gguf.quants.dequantize(stored, Kind[kind.upper()])


def as_matrix(folder: Path, kind: str, *parts: Any) -> Matrix:
    """Stored rows as a stack of matrices in a file."""
    tensors = {f"at.{i}": part for i, part in enumerate(parts)}
    path = write_gguf(folder / "x.gguf", tensors, {}, dict.fromkeys(tensors, Kind[kind.upper()]))
    stored = stored_tensors(path, read_header(path).tensors)
    return Matrix(tuple((Weight(f"{name}.weight", tensor.shape), tensor) for name, tensor in stored.items()))


def session(folder: Path, write: Callable[[OnnxBuilder], None]) -> ort.InferenceSession:
    with WeightFile(folder, "weights") as file:
        builder = OnnxBuilder(file, context=1)
        write(builder)
    ir.save(builder.model("test", "0"), folder / "model.onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "folded.onnx")
    return ort.InferenceSession(folder / "model.onnx", options)


def linear(folder: Path, matrix: Matrix, kind: str, x: Floats, bias: Floats | None = None) -> Floats:
    def write(g: OnnxBuilder) -> None:
        value = g.input("x", ir.DataType.FLOAT, [*"abc"[: x.ndim - 1], x.shape[-1]])
        added = None if bias is None else g.stored("bias", ir.DataType.FLOAT, bias.shape, lambda: [bias])
        result = GGUFBlocks(kind).linear(g, value, matrix, added)
        g.output(result, "y", ir.DataType.FLOAT, [None] * x.ndim)

    (result,) = session(folder, write).run(["y"], {"x": x})
    return result


@every_kind
@given(data=st.data())
@settings(max_examples=50)
def test_blocks_come_apart_into_what_the_package_makes_of_them(kind: str, data: st.DataObject) -> None:
    layout = LAYOUTS[kind]
    assert (layout.weights, layout.record.itemsize) == gguf.GGML_QUANT_SIZES[Kind[kind.upper()]]
    size = layout.record.itemsize * data.draw(st.integers(1, 3))
    stored = np.array([list(data.draw(st.binary(min_size=size, max_size=size)))], np.uint8)
    records = layout.records(stored)
    for field in {"d", "m", "dmin"} & layout.fields.keys():
        records[field] = np.nan_to_num(records[field], nan=1, posinf=2, neginf=-2)

    def per_group(halves: Any, factors: Callable[[Any], Any]) -> Any:
        wide = halves(records).astype(np.float64)[..., None]
        return (wide if layout.groups == 1 else wide * factors(records)).reshape(1, -1, 1)

    weights = per_group(layout.scales, layout.scale_factors) * (
        layout.codes(records).astype(np.float64) - (0 if layout.affine else 2 ** (layout.bits - 1))
    )
    magnitude = np.abs(weights)
    if layout.affine:
        minima = per_group(layout.minima, layout.minimum_factors)
        weights, magnitude = weights + minima, magnitude + np.abs(minima)
    difference = np.abs(weights.reshape(1, -1) - dequantized(stored, kind))
    assert np.all(difference <= 1e-7 * magnitude.reshape(1, -1))


@every_kind
@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("biased", [False, True])
def test_linear(kind: str, axes: int, biased: bool, tmp_path: Path) -> None:
    """Off by what the kernel rounds activations by, and by no more than float rounding of the weights."""
    parts = [random_blocks(kind, rows, 512, seed=rows) for rows in (5, 1, 64)]
    weights = np.concatenate([dequantized(part, kind) for part in parts]).astype(np.float64)
    x = random(*(2, 3)[:axes], 512)
    bias = random(len(weights)) if biased else None
    result = linear(tmp_path, as_matrix(tmp_path, kind, *parts), kind, x, bias)
    expected = x.astype(np.float64) @ weights.T + (0 if bias is None else bias)
    # The kernel rounds x while it multiplies codes about their middle, which may be larger than the weights.
    largest = np.abs(weights).reshape(len(weights), -1, LAYOUTS[kind].width).max(-1)
    spread = 2 * largest.repeat(LAYOUTS[kind].width, axis=-1)
    bound = GGUFBlocks(kind).rounding(x).astype(np.float64) @ spread.T + FLOAT_ROUNDING * (
        np.abs(x) @ spread.T
    )
    assert result.shape == expected.shape
    assert np.all(np.abs(result - expected) <= bound)


@every_kind
def test_linear_holds_each_weight_to_float_rounding(kind: str, tmp_path: Path) -> None:
    """A single activation is its block's largest, and not rounded: it brings a column out as it is."""
    stored = random_blocks(kind, 40, 512)
    columns = linear(tmp_path, as_matrix(tmp_path, kind, stored), kind, np.eye(512, dtype=np.float32))
    weights = dequantized(stored, kind).T
    scale = np.abs(weights).reshape(-1, LAYOUTS[kind].width, 40).max(1).repeat(LAYOUTS[kind].width, 0)
    assert np.all(np.abs(columns - weights) <= 2e-6 * scale)


@every_kind
def test_blocks_without_any_weight(kind: str, tmp_path: Path) -> None:
    """A scale of zero: the minimum, if the type has one, is all that there is."""
    stored = random_blocks(kind, 4, 512)
    LAYOUTS[kind].records(stored)["d"][:2] = 0
    columns = linear(tmp_path, as_matrix(tmp_path, kind, stored), kind, np.eye(512, dtype=np.float32))
    np.testing.assert_allclose(columns[:, :2], dequantized(stored, kind).T[:, :2], rtol=1e-6)


@every_kind
def test_no_step_pays_for_what_is_computed_from_constants(kind: str, tmp_path: Path) -> None:
    linear(tmp_path, as_matrix(tmp_path, kind, random_blocks(kind, 8, 512)), kind, random(1, 2, 512))
    nodes = Counter(node.op_type for node in ir.load(tmp_path / "folded.onnx").graph)
    second_term = ("Reshape", "ReduceSum", "MatMul", "Add") if LAYOUTS[kind].affine else ()
    assert nodes == Counter(("MatMulNBits", *second_term))


@pytest.mark.parametrize("kind", ["q5_1", "q6_k"])
def test_codes_that_onnxruntime_would_not_fold_are_stored_as_it_reads_them(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_blocks, "FOLDED", 8 * 512 - 1)
    x, matrix = random(2, 512), as_matrix(tmp_path, kind, random_blocks(kind, 8, 512))
    found = linear(tmp_path, matrix, kind, x)
    assert "BitShift" not in {node.op_type for node in ir.load(tmp_path / "model.onnx").graph}
    monkeypatch.undo()
    np.testing.assert_array_equal(found, linear(tmp_path, matrix, kind, x))


@every_kind
@pytest.mark.parametrize("tied", [False, True])
def test_embedded_rows_are_those_of_the_source_and_stored_once(kind: str, tied: bool, tmp_path: Path) -> None:
    stored = random_blocks(kind, 320, 1024)
    table = as_matrix(tmp_path, kind, stored)

    def write(g: OnnxBuilder) -> None:
        ids = g.input("ids", ir.DataType.INT64, ["a", "b"])
        x = GGUFBlocks(kind).embed(g, ids, table)
        if tied:
            x.shape, x.type = ir.Shape(["a", "b", 1024]), ir.TensorType(ir.DataType.FLOAT)
            g.output(GGUFBlocks(kind).linear(g, x, table, None), "y", ir.DataType.FLOAT, [None] * 3)
        g.output(x, "x", ir.DataType.FLOAT, [None] * 3)

    ids = np.array([[5, 0, 319], [5, 7, 1]])
    (found,) = session(tmp_path, write).run(["x"], {"ids": ids})
    np.testing.assert_allclose(found, dequantized(stored, kind)[ids], rtol=3e-7, atol=3e-7)
    assert (tmp_path / "weights").stat().st_size <= 1.08 * stored.nbytes


@every_kind
def test_a_scale_that_is_no_number_is_refused(kind: str, tmp_path: Path) -> None:
    stored = random_blocks(kind, 256, 256)
    LAYOUTS[kind].records(stored)["d"][3] = np.inf
    path = write_model(tmp_path / "x.gguf", dict.fromkeys(MATRICES, kind), {"blk.0.ffn_up.weight": stored})
    with pytest.raises(
        SourceError, match=r"x\.gguf: tensor model\.layers\.0\.mlp\.up_proj\.weight holds NaN"
    ):
        exported(open_checkpoint(path), tmp_path)


# A whole model, every width of it 256, as blocks demand.
CONFIG = {
    **architectures()["llama"].EXAMPLE,
    "vocab_size": 320,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 64,
}
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
METADATA: dict[str, Any] = {
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.embedding_length": 256,
    "llama.feed_forward_length": 256,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": [*ALPHABET, "he", *(f"<{i}>" for i in range(63))],
    "tokenizer.ggml.token_type": [1] * 257 + [3] * 63,
    "tokenizer.ggml.merges": ["h e"],
    "tokenizer.ggml.eos_token_id": 257,
}
MATRICES = [
    "token_embd.weight",
    *(f"blk.0.{stem}.weight" for stem in ("attn_q", "attn_k", "attn_v", "attn_output")),
    *(f"blk.0.{stem}.weight" for stem in ("ffn_gate", "ffn_up", "ffn_down")),
]
TOKENS = np.random.default_rng(3).integers(0, 320, 24).tolist()


def write_model(path: Path, kinds: dict[str, str], stored: dict[str, Any] | None = None) -> Path:
    """A tied llama whose matrices are of these types: random blocks where `stored` does not say which."""
    rng = np.random.default_rng(5)
    tensors: dict[str, Any] = {}
    for at, name in enumerate(MATRICES):
        rows = 320 if name == "token_embd.weight" else 256
        kind = kinds[name]
        scale = np.float32(0.06)
        tensors[name] = random(rows, 256, seed=at) * scale
        if kind in LAYOUTS:
            tensors[name] = random_blocks(kind, rows, 256, seed=at)
            records = LAYOUTS[kind].records(tensors[name])
            for field in {"d", "m", "dmin"} & LAYOUTS[kind].fields.keys():
                records[field] *= scale.astype(np.float16)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        tensors[f"{name}.weight"] = 1 + rng.standard_normal(256).astype(np.float32) / 8
    tensors |= stored or {}
    return write_gguf(path, tensors, METADATA, {name: Kind[kind.upper()] for name, kind in kinds.items()})


def exported(checkpoint: Checkpoint, folder: Path) -> tuple[Manifest, Model]:
    (folder / "out").mkdir()
    manifest = build(folder / "out", checkpoint, RECIPE)
    return manifest, Model(manifest, OrtProgram(folder / "out", manifest, threads=1))


def assert_same_function(checkpoint: Checkpoint, model: Model) -> None:
    """Logits are those of the weights that the file stands for, but for the rounding of activations."""

    def fetch(weight: Weight) -> Floats:
        return checkpoint.tensor(weight.name).rows(0, weight.shape[0])

    expected = NumpyGraph(describe(checkpoint.config), fetch).run(TOKENS)
    (logits,) = model.forward([Step(model.arena.row(), TOKENS, wanted=len(TOKENS))])
    assert np.linalg.norm(logits - expected) <= 0.02 * np.linalg.norm(expected)


@every_kind
def test_a_whole_model(kind: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "x.gguf", dict.fromkeys(MATRICES, kind))
    manifest, model = exported(open_checkpoint(path), tmp_path)
    assert set(manifest.weights.values()) == {kind}
    assert_same_function(open_checkpoint(path), model)


def test_each_matrix_of_a_mixed_file_by_its_own_type(tmp_path: Path) -> None:
    kinds = ["q6_k", "q4_k", "q4_k", "q8_0", "f16", "q5_1", "q4_0", "f32"]
    path = write_model(tmp_path / "x.gguf", dict(zip(MATRICES, kinds, strict=True)))
    manifest, model = exported(open_checkpoint(path), tmp_path)
    layer = "model.layers.0"
    assert manifest.weights == {
        "model.embed_tokens.weight": "q6_k",
        f"{layer}.self_attn.q_proj.weight": "q4_k",
        f"{layer}.self_attn.k_proj.weight": "q4_k",
        f"{layer}.self_attn.v_proj.weight": "q8_0",
        f"{layer}.self_attn.o_proj.weight": "float16",
        f"{layer}.mlp.gate_proj.weight": "q5_1",
        f"{layer}.mlp.up_proj.weight": "q4_0",
        f"{layer}.mlp.down_proj.weight": "float32",
    }
    assert_same_function(open_checkpoint(path), model)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_a_table_of_halves_under_quantized_layers(kind: str, tmp_path: Path) -> None:
    kinds = {**dict.fromkeys(MATRICES, "q8_0"), "token_embd.weight": kind}
    path = write_model(tmp_path / "x.gguf", kinds)
    _, model = exported(open_checkpoint(path), tmp_path)
    assert_same_function(open_checkpoint(path), model)
    source = sum(
        tensor.row_bytes * tensor.shape[0]
        for tensor in stored_tensors(path, read_header(path).tensors).values()
    )
    assert (
        tmp_path / "out" / "model.onnx.data"
    ).stat().st_size <= 1.12 * source + 2**17  # pages, rotary tables


def test_permuted_rows_are_put_in_order_block_by_block(tmp_path: Path) -> None:
    """llama.cpp stores q and k for interleaved rotary; what comes back are blocks of Hugging Face's rows."""
    rows = random_blocks("q4_k", 256, 256)
    stored = interleaved(rows, heads=4)
    kinds = dict.fromkeys(MATRICES, "q4_k")
    path = write_model(tmp_path / "x.gguf", kinds, {"blk.0.attn_q.weight": stored})
    tensor = open_checkpoint(path).tensor("model.layers.0.self_attn.q_proj.weight")
    np.testing.assert_array_equal(tensor.raw(0, 256), rows)
    np.testing.assert_array_equal(tensor.raw(37, 101), rows[37:101])
    np.testing.assert_array_equal(dequantized(tensor.raw(3, 4), "q4_k"), tensor.rows(3, 4))


def test_every_parameter_is_reported_once(tmp_path: Path) -> None:
    path = write_model(tmp_path / "x.gguf", dict(zip(MATRICES, ["q6_k", *LAYOUTS][:8], strict=True)))
    seen: list[tuple[int, int]] = []
    (tmp_path / "out").mkdir()
    build(tmp_path / "out", open_checkpoint(path), RECIPE, progress=lambda *report: seen.append(report[:2]))
    assert seen == sorted(seen)
    assert seen[-1] == (320 * 256 + 7 * 256 * 256 + 3 * 256,) * 2


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_a_gguf_without_blocks_is_refused(kind: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "x.gguf", dict.fromkeys(MATRICES, kind))
    with pytest.raises(SourceError, match=r"^.*x\.gguf: recipe gguf carries over .* choose another recipe$"):
        exported(open_checkpoint(path), tmp_path)


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="random: recipe gguf carries over the blocks of a quantized GGUF"):
        exported(random_checkpoint(CONFIG), tmp_path)
