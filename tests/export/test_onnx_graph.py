"""What the ONNX writer makes of descriptions: the nodes it saves, and that none of them changes a number."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from random_models import ArrayCheckpoint, export_random, random_checkpoint
from sardonyx.export.cost_graph import CostGraph
from sardonyx.export.numpy_graph import NumpyGraph
from sardonyx.export.onnx_graph import OnnxGraph, Plan
from sardonyx.export.quantizers.nbits import NBits
from sardonyx.export.quantizers.none import Float
from sardonyx.export.recipes import RECIPES, Recipe
from sardonyx.export.targets import CPU
from sardonyx.export.weight_file import WeightFile
from sardonyx.models import architectures
from sardonyx.models.graph import Linear, Weight

EXAMPLE = architectures()["llama"].EXAMPLE
WIDTH, VOCAB = 32, 10
TABLE = Weight("embed_tokens.weight", (VOCAB, WIDTH))
FLOAT = Recipe("test", "", (("*", Float()),))
TOKENS = [3, 1, 4, 1, 5]


def matrix(name: str, outputs: int = WIDTH, *, bias: bool = False) -> Linear:
    return Linear(
        Weight(f"{name}.weight", (outputs, WIDTH)), Weight(f"{name}.bias", (outputs,)) if bias else None
    )


def norm(g: Any, x: Any, name: str) -> Any:
    return g.rms_norm(x, Weight(f"{name}.weight", (WIDTH,)), 1e-5)


class Sketch:
    """A network of what `middle` does between the embedding and a head as wide as the vocabulary."""

    def __init__(self, middle: Callable[[Any, Any], Any]) -> None:
        self._middle = middle

    def emit(self, g: Any) -> None:
        x = g.select(self._middle(g, g.embed(TABLE)))
        (logits,) = g.linear(x, matrix("head", VOCAB))
        g.output(logits, hidden=x)


def checkpoint(sketch: Sketch) -> ArrayCheckpoint:
    wanted = CostGraph()
    sketch.emit(wanted)
    rng = np.random.default_rng(0)
    arrays = {w.name: rng.standard_normal(w.shape).astype(np.float32) / 4 for w in wanted.weights.values()}
    return ArrayCheckpoint({}, arrays)


def written(sketch: Sketch, folder: Path, recipe: Recipe = FLOAT) -> OnnxGraph:
    with WeightFile(folder, "weights") as file:
        graph = OnnxGraph(Plan(checkpoint(sketch), recipe, CPU, context=8), file)
        sketch.emit(graph)
    return graph


def kinds(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def nodes(middle: Callable[[Any, Any], Any], folder: Path) -> Counter[str]:
    """The kinds of nodes that the sketch becomes, having made sure that they compute what numpy does."""
    sketch = Sketch(middle)
    model = written(sketch, folder).builder.model("test", "0")
    ir.save(model, folder / "model.onnx")
    inputs = {"input_ids": np.array([TOKENS]), "logit_rows": np.arange(len(TOKENS))}
    (logits,) = ort.InferenceSession(folder / "model.onnx").run(["logits"], inputs)
    expected = NumpyGraph(sketch, checkpoint(sketch).fetch).run(TOKENS)  # type: ignore[arg-type]
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    return kinds(model)


FRAME = Counter(["Gather", "Reshape", "Gather", "MatMul"])
"""Embedding, selection and head."""


def test_layers_that_read_the_same_are_one_product(tmp_path: Path) -> None:
    def middle(g: Any, x: Any) -> Any:
        a, b, c = g.linear(x, matrix("a"), matrix("b", bias=True), matrix("c"))
        return g.mul(g.mul(a, b), c)

    found = nodes(middle, tmp_path)
    assert found == FRAME + Counter(["MatMul", "Add", "Split", "Mul", "Mul"])


def test_layers_of_different_quantizers_are_not(tmp_path: Path) -> None:
    recipe = Recipe("test", "", (("b.weight", NBits(8)), ("*", Float())))

    def middle(g: Any, x: Any) -> Any:
        a, b, c = g.linear(x, matrix("a"), matrix("b", bias=True), matrix("c"))
        return g.mul(g.mul(a, b), c)

    graph = written(Sketch(middle), tmp_path, recipe)
    assert kinds(graph.builder.model("test", "0")) == FRAME + Counter(
        ["MatMul", "MatMulNBits", "MatMul", "Mul", "Mul", "Cast", "Gather", "Mul"]
    )  # the last three make scales, once, while the model loads
    assert graph.quantizer_of == {
        "embed_tokens.weight": "float32",
        "a.weight": "float32",
        "b.weight": "int8/32",
        "c.weight": "float32",
        "head.weight": "float32",
    }


def test_a_norm_takes_the_sum_before_it_along(tmp_path: Path) -> None:
    def middle(g: Any, x: Any) -> Any:
        (a,) = g.linear(x, matrix("a"))
        total = g.add(x, a)
        (b,) = g.linear(norm(g, total, "norm"), matrix("b"))
        return norm(g, g.add(total, b), "last")

    found = nodes(middle, tmp_path)
    assert found == FRAME + Counter(["MatMul"] * 2 + ["SkipSimplifiedLayerNormalization"] * 2)


def test_a_sum_that_no_norm_reads_first_is_added_once(tmp_path: Path) -> None:
    def middle(g: Any, x: Any) -> Any:
        total = g.add(x, x)
        doubled = g.mul(total, total)
        return g.mul(norm(g, total, "norm"), doubled)

    found = nodes(middle, tmp_path)
    assert found == FRAME + Counter(["Add", "Mul", "RMSNormalization", "Mul"])


def test_norms_in_parallel_share_a_sum(tmp_path: Path) -> None:
    def middle(g: Any, x: Any) -> Any:
        total = g.add(x, x)
        return g.mul(norm(g, total, "a"), norm(g, total, "b"))

    found = nodes(middle, tmp_path)
    assert found["SkipSimplifiedLayerNormalization"] + found["RMSNormalization"] == 2
    assert found["Add"] == 0


def test_sums_of_sums(tmp_path: Path) -> None:
    found = nodes(lambda g, x: g.add(g.add(x, g.mul(x, x)), x), tmp_path)
    assert found == FRAME + Counter(["Mul", "Add", "Add"])


def test_llama_is_as_few_nodes_as_onnxruntime_can_fuse(tmp_path: Path) -> None:
    export_random(EXAMPLE, tmp_path / "out")
    found = kinds(ir.load(tmp_path / "out" / "model.onnx"))
    layer = {
        "MatMul": 4,  # q, k and v; output; gate and up; down
        "GroupQueryAttention": 1,
        "SkipSimplifiedLayerNormalization": 2,
        "Split": 1,
        "QuickGelu": 1,
        "Mul": 1,
    }
    depth = EXAMPLE["num_hidden_layers"]
    expected = Counter({kind: depth * count for kind, count in layer.items()})
    expected += Counter({"Gather": 2, "RMSNormalization": 2, "Reshape": 1, "Add": 1, "Gemm": 1})
    expected += Counter({"Range": 1, "Cast": 4, "Reshape": 1, "Mul": 3, "Cos": 1, "Sin": 1})  # rotary tables
    expected["SkipSimplifiedLayerNormalization"] -= 1  # the first norm has no sum before it, and the last
    assert found == expected  # stands behind the selection


@pytest.mark.parametrize("recipe", [recipe.name for recipe in RECIPES.values() if recipe.rules])
def test_nothing_is_stored_twice(tmp_path: Path, recipe: str) -> None:
    """Tied tables, rotary tables, constants: each initializer has its own content."""
    export_random(EXAMPLE, tmp_path / "out", recipe)
    graph = ir.load(tmp_path / "out" / "model.onnx").graph
    contents = [
        (str(v.dtype), tuple(v.const_value.shape.numpy()), v.const_value.tobytes())  # type: ignore[union-attr]
        for v in graph.initializers.values()
    ]
    assert len(contents) == len(set(contents))


def test_each_tensor_starts_on_a_line_and_large_ones_on_a_page(tmp_path: Path) -> None:
    export_random({**EXAMPLE, "intermediate_size": 512}, tmp_path / "out")
    graph = ir.load(tmp_path / "out" / "model.onnx").graph
    stored = [
        v.const_value for v in graph.initializers.values() if isinstance(v.const_value, ir.ExternalTensor)
    ]
    assert stored
    assert all(tensor.offset % (4096 if tensor.nbytes >= 1 << 16 else 64) == 0 for tensor in stored)
    assert any(tensor.nbytes >= 1 << 16 for tensor in stored)


def test_the_weights_of_a_model_are_all_used(tmp_path: Path) -> None:
    checkpoint, manifest = export_random(
        {**EXAMPLE, "attention_bias": True, "mlp_bias": True}, tmp_path / "out"
    )
    names = "".join(ir.load(tmp_path / "out" / "model.onnx").graph.initializers)
    for name in random_checkpoint(checkpoint.config).arrays:
        assert name.removesuffix(".weight").rpartition(".")[2] in names
    assert manifest.states[0].input == "past_key_values.0.key"


def test_no_step_makes_rotary_tables(tmp_path: Path) -> None:
    """Nodes make them of frequencies, and onnxruntime folds those: to the angles' functions in float64."""
    export_random(EXAMPLE, tmp_path / "out")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(tmp_path / "out" / "model.onnx", options)
    graph = ir.load(tmp_path / "folded.onnx").graph
    assert not {"Range", "Cos", "Sin"} & {node.op_type for node in graph}
    attention = next(node for node in graph if node.op_type == "GroupQueryAttention")
    tables = [attention.inputs[index].const_value.numpy() for index in (7, 8)]  # type: ignore[union-attr]
    width, context = EXAMPLE["head_dim"], EXAMPLE["max_position_embeddings"]
    frequencies = 1 / EXAMPLE["rope_theta"] ** (np.arange(0, width, 2) / width)
    angles = (np.arange(context, dtype=np.float32)[:, None] * frequencies.astype(np.float32)).astype(
        np.float64
    )
    for table, function in zip(tables, (np.cos, np.sin), strict=True):
        np.testing.assert_allclose(table, function(angles), atol=1e-6)
