"""A traced graph becomes an artifact: its weights under a recipe, everything else as it was."""

import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from foreign_graphs import LAYERS, Graph, reference, weights, write_settings
from sardonyx.export import api
from sardonyx.export.api import Options, export
from sardonyx.export.certificate import stored_certificate
from sardonyx.export.checkpoint import Float32
from sardonyx.export.onnx_builder import OnnxBuilder
from sardonyx.export.recipes import RECIPES, Recipe
from sardonyx.export.traced import calibrate
from sardonyx.export.traced.home import bring_home
from sardonyx.export.traced.optimum import trace
from sardonyx.export.traced.products import products
from sardonyx.export.weights import Matrix, Moment
from sardonyx.runtime import LLM
from sardonyx.runtime.errors import MissingExtra, RequestError, SourceError
from sardonyx.runtime.manifest import MODEL_NAME, PORTABLE, Manifest
from sardonyx.runtime.neighbours import read
from sardonyx.runtime.neighbours.folder import Neighbour
from sardonyx.runtime.strategies import Feed

TEXT = [5, 60, 7, 88, 9, 10, 31, 2]


def neighbour(folder: Path, *, tied: bool = False, gemm: bool = False) -> Neighbour:
    """A tiny graph; `tied` multiplies by its turned table, `gemm` with operators that add a bias."""
    path = Graph().write(write_settings(folder) / "model.onnx")
    model = onnx.load(path)
    nodes = list(model.graph.node)
    if tied:
        nodes.insert(0, helper.make_node("Transpose", ["table"], ["head"], perm=[1, 0]))
        kept = [tensor for tensor in model.graph.initializer if tensor.name != "head"]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
    if gemm:
        index = next(i for i, node in enumerate(nodes) if "woL".replace("L", "0") in node.input)
        old = nodes[index]
        bias = onnx.numpy_helper.from_array(np.zeros(16, np.float32), "bias")
        flat = onnx.numpy_helper.from_array(np.array([-1, 16]), "flat")
        model.graph.initializer.extend([bias, flat])
        nodes[index : index + 1] = [
            helper.make_node("Reshape", [old.input[0], "flat"], ["flattened"]),
            helper.make_node("Gemm", ["flattened", "wo0", "bias"], ["product"], name="/model/h.0/attn/Gemm"),
            helper.make_node("Shape", [old.input[0]], ["shape"]),
            helper.make_node("Reshape", ["product", "shape"], [old.output[0]]),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)
    found = read(folder)
    assert found is not None
    return found


class Kept:
    """A quantizer that loses nothing, but stores and multiplies in its own way: any mix-up of weights
    shows."""

    calibrated: ClassVar = False

    def __str__(self) -> str:
        return "kept"

    def linear(self, g: OnnxBuilder, x: ir.Value, weight: Matrix, bias: ir.Value | None) -> ir.Value:
        product = g.op("MatMul", x, g.op("Transpose", self._stored(g, weight), perm=[1, 0]))
        return product if bias is None else g.op("Add", product, bias)

    def embed(self, g: OnnxBuilder, ids: ir.Value, table: Matrix) -> ir.Value:
        return g.op("Gather", self._stored(g, table), ids, axis=0)

    def _stored(self, g: OnnxBuilder, weight: Matrix) -> ir.Value:
        return g.stored(f"{weight.name}.kept", ir.DataType.FLOAT, weight.shape, weight.chunks)

    def dequantized(self, rows: Float32, moment: Moment | None = None) -> Float32:
        return rows

    def rounding(self, x: Float32) -> Float32:
        return np.zeros_like(x)


KEPT = Recipe("kept", "", (("*", Kept()),))


def home(folder: Path, source: Neighbour, recipe: Recipe) -> Manifest:
    folder.mkdir()
    return bring_home(folder, source, recipe, "tiny")


def logits(folder: Path) -> np.ndarray:
    ((found,),) = LLM.load(folder, threads=1).logits(Feed([TEXT], wanted=len(TEXT)))
    return found


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("gemm", [False, True])
@pytest.mark.parametrize("recipe", [RECIPES["fp32"], KEPT], ids=["fp32", "kept"])
def test_it_says_what_it_said(recipe: Recipe, tied: bool, gemm: bool, tmp_path: Path) -> None:
    manifest = home(tmp_path / "home", neighbour(tmp_path / "source", tied=tied, gemm=gemm), recipe)
    assert (manifest.target, manifest.recipe, manifest.name) == (PORTABLE, recipe.name, "tiny")
    assert len(manifest.weights) == 4 * LAYERS + (1 if tied else 2)
    np.testing.assert_allclose(logits(tmp_path / "home"), reference(TEXT, Graph()), atol=5e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_no_weight_is_left_as_a_float(tied: bool, tmp_path: Path) -> None:
    source = neighbour(tmp_path / "source", tied=tied)
    manifest = home(tmp_path / "home", source, RECIPES["int4"])
    graph = ir.load(tmp_path / "home" / MODEL_NAME).graph
    assert products(graph) == []
    kinds = [node.op_type for node in graph]
    assert kinds.count("MatMulNBits") == 4 * LAYERS + 1
    assert kinds.count("GatherBlockQuantized") == 1
    assert kinds.count("Transpose") == 4 * LAYERS + LAYERS  # those of the attention
    tables = {"model.embed_tokens.weight": "int8/32"} | ({} if tied else {"lm_head.weight": "int8/32"})
    assert tables.items() <= manifest.weights.items()
    assert set(manifest.weights.values()) == {"int4/32", "int8/32"}


def test_a_weight_that_two_nodes_read_is_stored_once(tmp_path: Path) -> None:
    home(tmp_path / "home", neighbour(tmp_path / "source", tied=True), RECIPES["int4"])
    graph = ir.load(tmp_path / "home" / MODEL_NAME).graph
    codes = [name for name in graph.initializers if name.startswith("model.embed_tokens.codes")]
    assert len(codes) == 1


def test_products_are_named_after_their_modules(tmp_path: Path) -> None:
    graph = ir.load(neighbour(tmp_path / "source", gemm=True).laid.graph).graph
    names = [product.weight.name for product in products(graph)]
    assert names[0] == "model.embed_tokens.weight"
    assert names[-1] == "lm_head.weight"
    assert {"wq0.weight", "model.h.0.attn.weight"} <= set(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("held", [calibrate.HELD, 2000])
def test_what_is_multiplied_is_seen(held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first layer, whose input is known; in one reading or in several."""
    monkeypatch.setattr(calibrate, "HELD", held)
    source = neighbour(tmp_path / "source")
    found = [p for p in products(ir.load(source.laid.graph).graph) if not p.is_table]
    windows = [TEXT, [*TEXT[3:], 3, 4]]
    seen = calibrate.moments(source.laid.graph, found, source.manifest.states, windows)
    assert {weight.name for weight in seen} == {product.weight.name for product in found}
    w = weights()
    x = np.concatenate([w["table"][list(tokens)] + w["places"][: len(tokens)] for tokens in windows])
    first = next(weight for weight in seen if weight.name == "wq0.weight")
    (square,) = seen[first]
    np.testing.assert_allclose(square, x.T @ x / len(x), rtol=1e-5, atol=1e-5)


def test_four_bits_are_calibrated_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "trace", traced)
    for calibrated in (True, False):
        options = Options(via="optimum", calibrate=calibrated, verify=False)
        manifest = export(tmp_path, tmp_path / str(calibrated), recipe="int4", options=options)
        assert (manifest.calibration is not None) == calibrated
    assert not np.array_equal(logits(tmp_path / "True"), logits(tmp_path / "False"))


def traced(source: Path, folder: Path) -> Neighbour:
    """Stands in for optimum, which needs torch."""
    return neighbour(folder)


@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_export_measures_against_the_graph_as_it_was_traced(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "trace", traced)
    manifest = export(tmp_path, tmp_path / "out", recipe=recipe, options=Options(via="optimum"))
    certificate = stored_certificate(tmp_path / "out")
    assert certificate is not None
    assert 0 < certificate.overall.kl_mean < RECIPES[recipe].limits.kl_mean  # type: ignore[operator]
    assert "as fp32" in certificate.reference
    assert set(manifest.files) == {path.name for path in (tmp_path / "out").iterdir()} - {"sardonyx.json"}
    assert certificate.structure.faults == []


def test_a_float_export_is_its_own_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "trace", traced)
    export(tmp_path, tmp_path / "out", recipe="fp32", options=Options(via="optimum", context=32))
    certificate = stored_certificate(tmp_path / "out")
    assert certificate is not None
    assert certificate.overall.kl_mean == 0
    assert LLM.load(tmp_path / "out").manifest.context_length == 32


@pytest.mark.parametrize(
    ("options", "recipe", "said"),
    [
        (Options(via="mobius"), "int4", "via 'mobius' is not known; known: optimum"),
        (Options(via="optimum", hidden_states=True), "int4", "puts out no hidden states"),
        (Options(via="optimum", adapter=Path("a")), "int4", "takes no adapter; export it without"),
        (Options(via="optimum"), "gguf", "recipe gguf takes what a checkpoint holds"),
        (Options(via="optimum", context=65), "int4", "context 65 is out of range: .* 1 to 64"),
    ],
)
def test_what_cannot_be_honoured(
    options: Options, recipe: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "trace", traced)
    with pytest.raises(RequestError, match=said):
        export(tmp_path, tmp_path / "out", recipe=recipe, options=options)
    assert not (tmp_path / "out").exists()


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)
    write_settings(tmp_path / "source")
    with pytest.raises(MissingExtra, match=r"optimum-onnx is not installed; run: .*sardonyx\[optimum\]"):
        trace(tmp_path / "source", tmp_path / "out")


def test_only_a_folder_can_be_traced(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="optimum takes a Hugging Face folder"):
        trace(tmp_path, tmp_path / "out")
