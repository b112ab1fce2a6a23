"""Mixtures of experts: what onnxruntime's node computes equals what the verb means, on what is stored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from random_models import UNMEASURED, ArrayTensor, export_random, random_checkpoint, random_weight
from sardonyx.export.api import Options, export
from sardonyx.export.checkpoint import Float32
from sardonyx.export.experts import Stack, mixture
from sardonyx.export.onnx_builder import OnnxBuilder
from sardonyx.export.quantizers import Quantizer
from sardonyx.export.quantizers.nbits import NBits
from sardonyx.export.quantizers.none import Float
from sardonyx.export.quantizers.w8a8 import W8A8
from sardonyx.export.weight_file import WeightFile
from sardonyx.export.weights import unseen
from sardonyx.models import architectures
from sardonyx.models.config import ConfigError
from sardonyx.models.graph import Expert, MixtureSpec
from sardonyx.models.parts.linear import linear
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.errors import SourceError
from sardonyx.runtime.model import Model, Step

EXPERTS, HIDDEN, INNER, TOKENS = 5, 96, 64, 9
SPECS = {
    "shares of the chosen": MixtureSpec(2, normalized=True),
    "shares of all": MixtureSpec(2, normalized=False),
    "all chosen": MixtureSpec(EXPERTS, normalized=False),
    "limited": MixtureSpec(2, normalized=True, sharpness=1.702, offset=1.0, limit=0.7),
}
QUANTIZERS = (Float(), NBits(4), NBits(8), NBits(4, block=16))


def layers(*, bias: bool) -> list[Expert]:
    return [
        Expert(
            linear(f"at.experts.{i}.gate_proj", INNER, HIDDEN, bias=bias),
            linear(f"at.experts.{i}.up_proj", INNER, HIDDEN, bias=bias),
            linear(f"at.experts.{i}.down_proj", HIDDEN, INNER, bias=bias),
        )
        for i in range(EXPERTS)
    ]


def weights_of(experts: Sequence[Expert]) -> dict[str, Float32]:
    rng = np.random.default_rng(5)
    wanted = [
        part for e in experts for layer in (e.gate, e.up, e.down) for part in (layer.weight, layer.bias)
    ]
    return {weight.name: random_weight(weight.name, weight.shape, rng) for weight in wanted if weight}


def computed(
    folder: Path, experts: Sequence[Expert], spec: MixtureSpec, quantizer: Quantizer
) -> ort.InferenceSession:
    arrays = weights_of(experts)
    with WeightFile(folder, "weights") as file:
        g = OnnxBuilder(file, context=1)
        x = g.input("x", ir.DataType.FLOAT, ["tokens", HIDDEN])
        scores = g.input("scores", ir.DataType.FLOAT, ["tokens", EXPERTS])
        stack = Stack(experts, lambda weight: ArrayTensor(arrays[weight.name]), unseen)
        g.output(mixture(g, (x, scores), stack, spec, quantizer), "y", ir.DataType.FLOAT, ["tokens", HIDDEN])
    ir.save(g.model("test", "0"), folder / "model.onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(folder / "model.onnx", options)


def rounded(x: Float32, quantizer: Quantizer) -> Float32:
    """Activations as the kernel reads them: blocks of them are bytes, as weights are."""
    if isinstance(quantizer, Float):
        return x
    step = 2 * quantizer.rounding(x)
    return np.rint(np.divide(x, step, out=np.zeros_like(x), where=step > 0)) * step


def meant(
    x: Float32, scores: Float32, experts: Sequence[Expert], spec: MixtureSpec, quantizer: Quantizer
) -> Any:
    """Token by token, in the words of `MixtureSpec`."""
    arrays = weights_of(experts)

    def product(layer: Any, values: Float32) -> Any:
        weight = quantizer.dequantized(arrays[layer.weight.name])
        bias = arrays[layer.bias.name] if layer.bias else 0
        return weight @ rounded(values[None], quantizer)[0] + bias

    result = np.zeros_like(x)
    for token, (values, score) in enumerate(zip(x, scores, strict=True)):
        shares = np.exp(score) / np.exp(score).sum()
        chosen = np.argsort(-score)[: spec.chosen]
        total = shares[chosen].sum() if spec.normalized else 1
        for index in chosen:
            gate, up = product(experts[index].gate, values), product(experts[index].up, values)
            if spec.limit:
                gate, up = np.minimum(gate, spec.limit), np.clip(up, -spec.limit, spec.limit)
            inner = gate / (1 + np.exp(-spec.sharpness * gate)) * (up + spec.offset)
            result[token] += shares[index] / total * product(experts[index].down, inner.astype(np.float32))
    return result


def inputs() -> dict[str, Float32]:
    rng = np.random.default_rng(6)
    return {
        "x": rng.standard_normal((TOKENS, HIDDEN)).astype(np.float32),
        "scores": rng.standard_normal((TOKENS, EXPERTS)).astype(np.float32),
    }


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "biased"])
def test_the_node_computes_what_is_meant(bias: bool, spec: str, quantizer: Quantizer, tmp_path: Path) -> None:
    experts, fed = layers(bias=bias), inputs()
    (found,) = computed(tmp_path, experts, SPECS[spec], quantizer).run(None, fed)
    expected = meant(fed["x"], fed["scores"], experts, SPECS[spec], quantizer)
    # an activation at the middle of two steps may go either way: one step of one number
    tolerance = 1e-5 if isinstance(quantizer, Float) else 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("quantizer", QUANTIZERS[1:], ids=str)
def test_blocks_do_not_depend_on_company(quantizer: Quantizer, tmp_path: Path) -> None:
    session = computed(tmp_path, layers(bias=True), SPECS["shares of the chosen"], quantizer)
    fed = inputs()
    (together,) = session.run(None, fed)
    for token in range(TOKENS):
        (alone,) = session.run(None, {name: array[token : token + 1] for name, array in fed.items()})
        np.testing.assert_array_equal(alone[0], together[token])


def test_a_quantizer_without_such_a_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="experts cannot be stored as w8a8; choose recipe int4, int8 or fp32"
    ):
        computed(tmp_path, layers(bias=False), SPECS["limited"], W8A8())


@pytest.mark.parametrize("recipe", ["int4", "int8"])
def test_experts_of_no_whole_blocks_are_refused(recipe: str, tmp_path: Path) -> None:
    odd = random_checkpoint({**architectures()["mixtral"].EXAMPLE, "intermediate_size": 40})
    with pytest.raises(SourceError, match=r"experts read 40 numbers, .* blocks of 32; choose recipe fp32"):
        export(odd, tmp_path / "out", recipe=recipe, options=UNMEASURED)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("recipe", "experts"), [("int4", "int4/32"), ("int8", "int8/32")])
def test_recipes_quantize_experts_and_no_router(recipe: str, experts: str, tmp_path: Path) -> None:
    _, manifest = export_random(architectures()["mixtral"].EXAMPLE, tmp_path / "out", recipe=recipe)
    kinds = {name: kind for name, kind in manifest.weights.items() if ".layers.0.mlp." in name}
    assert kinds.pop("model.layers.0.mlp.gate.weight") == "float32"
    assert set(kinds.values()) == {experts}
    model = Model(manifest, OrtProgram(tmp_path / "out", manifest, threads=1))
    (logits,) = model.forward([Step(model.arena.row(), [1, 2, 3])])
    assert np.isfinite(logits).all()


def test_float_experts_are_certified_within_noise(tmp_path: Path) -> None:
    """Company may change their last bits, and nothing more."""
    checkpoint = random_checkpoint({**architectures()["qwen3_moe"].EXAMPLE, "max_position_embeddings": 512})
    export(checkpoint, tmp_path / "out", recipe="fp32", options=Options(verify=True))
