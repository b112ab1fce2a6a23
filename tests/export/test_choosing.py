"""Quantizers that choose when they see a matrix and what it multiplies, in every architecture."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from adapter_files import low_rank, save_adapter
from random_models import random_checkpoint
from sardonyx.export import calibration
from sardonyx.export.adapters.peft import read_adapter
from sardonyx.export.api import Options, export
from sardonyx.export.build import Extras, build
from sardonyx.export.checkpoint import Float32
from sardonyx.export.numpy_graph import NumpyGraph
from sardonyx.export.quantizers import Quantizer
from sardonyx.export.quantizers.none import Float
from sardonyx.export.recipes import EXPERTS, RECIPES, ROUTER, TABLES, Recipe
from sardonyx.export.weights import Matrix
from sardonyx.models import architectures, describe
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.manifest import MODEL_NAME, Manifest
from sardonyx.runtime.model import Model, Step

ARCHITECTURES = architectures()
LLAMA = ARCHITECTURES["llama"].EXAMPLE
TOKENS = [ord(letter) - 32 for letter in "it rained all day, and they read to them"]
"""In the letters of the calibration text: others would be a surprise to random weights."""


class Dividing(Float):
    """Wants inputs divided by factors, whatever they are; stores floats."""

    def chosen(self, matrix: Matrix) -> tuple[Quantizer, Float32 | None]:
        factors = np.random.default_rng(matrix.shape[0]).uniform(0.1, 10, matrix.shape[1])
        return Float(), factors.astype(np.float32)


FLOATS = tuple((pattern, Float()) for pattern in (*TABLES, ROUTER, EXPERTS))
DIVIDED = Recipe("divided", "", (*FLOATS, ("*", Dividing())))


@pytest.fixture(autouse=True)
def short_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "TOKENS", 2000)


def model_of(folder: Path, manifest: Manifest) -> Model:
    return Model(manifest, OrtProgram(folder, manifest, threads=1))


def logits(model: Model, tokens: list[int]) -> Any:
    """Of every position."""
    row = model.arena.row()
    (found,) = model.forward([Step(row, tokens, len(tokens))])
    model.arena.release(row)
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_divided_inputs_change_nothing(name: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(ARCHITECTURES[name].EXAMPLE)
    manifest = build(tmp_path, checkpoint, DIVIDED)
    expected = NumpyGraph(describe(checkpoint.config), checkpoint.fetch).run(TOKENS)
    found = logits(model_of(tmp_path, manifest), TOKENS)
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def test_a_norm_divides_at_no_cost(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(LLAMA)
    kinds = []
    for recipe in (RECIPES["fp32"], DIVIDED):
        folder = tmp_path / recipe.name
        folder.mkdir()
        build(folder, checkpoint, recipe)
        kinds.append(Counter(node.op_type for node in ir.load(folder / MODEL_NAME).graph))
    layers = LLAMA["num_hidden_layers"]
    assert kinds[1] - kinds[0] == {"Mul": 2 * layers}  # before what leaves attention, and the MLP
    assert not kinds[0] - kinds[1]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_steps_for_all_tokens_are_about_as_good_as_one_for_each(name: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(ARCHITECTURES[name].EXAMPLE)
    expected = NumpyGraph(describe(checkpoint.config), checkpoint.fetch).run(TOKENS)
    errors = []
    for calibrate in (False, True):
        folder = tmp_path / str(calibrate)
        options = Options(verify=False, calibrate=calibrate)
        manifest = export(checkpoint, folder, recipe="int8", options=options)
        assert ("w8a8 static" in manifest.weights.values()) == calibrate
        assert (manifest.calibration is not None) == calibrate
        errors.append(np.sqrt(np.mean((logits(model_of(folder, manifest), TOKENS) - expected) ** 2)))
    assert errors[1] < max(1.5 * errors[0], 0.05 * np.std(expected))


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """A model one of whose layers multiplies by steps for all tokens, another by one for each."""
    checkpoint = random_checkpoint(LLAMA)
    folder = tmp_path_factory.mktemp("static") / "artifact"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "TOKENS", 2000)
        return folder, export(checkpoint, folder, recipe="int8", options=Options(verify=False))


def test_company_changes_no_bit(static: tuple[Path, Manifest]) -> None:
    model = model_of(*static)
    texts = [TOKENS[:17], TOKENS[5:40], TOKENS[30:33]]
    rows = [model.arena.row() for _ in texts]
    together = model.forward([Step(row, text, len(text)) for row, text in zip(rows, texts, strict=True)])
    after = model.forward([Step(row, [9], 1) for row in rows])
    for text, found, later in zip(texts, together, after, strict=True):
        row = model.arena.row()
        (alone,) = model.forward([Step(row, text, len(text))])
        np.testing.assert_array_equal(alone, found)
        np.testing.assert_array_equal(model.forward([Step(row, [9], 1)])[0], later)
        model.arena.release(row)


def test_pieces_of_a_prompt_change_no_bit(static: tuple[Path, Manifest]) -> None:
    model = model_of(*static)
    whole, row = logits(model, TOKENS), model.arena.row()
    parts = [model.forward([Step(row, TOKENS[at : at + 10], 10)])[0] for at in range(0, 40, 10)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_same_export_is_the_same_bytes(static: tuple[Path, Manifest], tmp_path: Path) -> None:
    again = export(random_checkpoint(LLAMA), tmp_path / "again", recipe="int8", options=Options(verify=False))
    assert again == static[1]


def test_adapters_leave_each_token_its_own_step(tmp_path: Path) -> None:
    """What they make of activations was not seen."""
    checkpoint = random_checkpoint(LLAMA)
    arrays = low_rank(checkpoint, ["model.layers.0.self_attn.q_proj"], rank=2)
    extras = Extras(adapters=[read_adapter(save_adapter(tmp_path / "one", arrays, r=2), checkpoint)])
    (tmp_path / "out").mkdir()
    manifest = build(tmp_path / "out", checkpoint, RECIPES["int8"], extras=extras)
    assert "w8a8 static" not in manifest.weights.values()
