"""The ladder: every described architecture climbs it by being a file in the folder.

L1 its EXAMPLE builds, L2 the ONNX checker passes it, L3 ONNX equals numpy however the tokens are cut into
steps. L4 and L5 need torch and live in `tests/parity`.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from random_models import ArrayCheckpoint, export_random
from sardonyx.export.cost_graph import cost
from sardonyx.export.numpy_graph import NumpyGraph
from sardonyx.models import architectures, describe
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.manifest import MODEL_NAME, Manifest
from sardonyx.runtime.model import Model, Step

ARCHITECTURES = architectures()
TOLERANCE = 2e-5
TOKENS = np.random.default_rng(1).integers(1, 99, (3, 40)).tolist()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ArrayCheckpoint, Path, Manifest]:
    folder = tmp_path_factory.mktemp(request.param) / "artifact"
    checkpoint, manifest = export_random(ARCHITECTURES[request.param].EXAMPLE, folder)
    return checkpoint, folder, manifest


@pytest.fixture
def model(exported: tuple[ArrayCheckpoint, Path, Manifest]) -> Model:
    _, folder, manifest = exported
    return Model(manifest, OrtProgram(folder, manifest, threads=1))


@pytest.fixture(scope="module")
def expected(exported: tuple[ArrayCheckpoint, Path, Manifest]) -> list[Any]:
    """Logits of every position of every sequence by the numpy reference."""
    checkpoint = exported[0]
    decoder = describe(checkpoint.config)
    return [NumpyGraph(decoder, checkpoint.fetch).run(tokens) for tokens in TOKENS]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_l1_the_example_builds(name: str) -> None:
    counted = cost(describe(ARCHITECTURES[name].EXAMPLE))
    assert counted.parameters > 0
    assert counted.states


def test_l2_the_checker_passes(exported: tuple[ArrayCheckpoint, Path, Manifest]) -> None:
    onnx.checker.check_model(exported[1] / MODEL_NAME, full_check=True)


def test_l3_prefill(model: Model, expected: list[Any]) -> None:
    (logits,) = model.forward([Step(model.arena.row(), TOKENS[0], wanted=len(TOKENS[0]))])
    np.testing.assert_allclose(logits, expected[0], atol=TOLERANCE)


def test_l3_step_by_step(model: Model, expected: list[Any]) -> None:
    row = model.arena.row()
    logits = [model.forward([Step(row, [token])])[0][0] for token in TOKENS[0]]
    np.testing.assert_allclose(logits, expected[0], atol=TOLERANCE)


def test_l3_chunks(model: Model, expected: list[Any]) -> None:
    row = model.arena.row()
    cuts = [0, 7, 8, 11, 29, 40]
    steps = [TOKENS[0][a:b] for a, b in pairwise(cuts)]
    logits = [model.forward([Step(row, tokens, wanted=len(tokens))])[0] for tokens in steps]
    np.testing.assert_allclose(np.concatenate(logits), expected[0], atol=TOLERANCE)


def test_l3_ragged_batch(model: Model, expected: list[Any]) -> None:
    """Rows of different pasts take single tokens and short runs together."""
    rows = [model.arena.row() for _ in TOKENS]
    lengths = [3, 17, 30]
    model.forward([Step(row, TOKENS[i][: lengths[i]], wanted=0) for i, row in enumerate(rows)])
    for counts in ([1, 1, 1], [2, 5, 1], [4, 3, 2]):
        steps = [
            Step(row, TOKENS[i][row.length : row.length + count], wanted=count)
            for i, (row, count) in enumerate(zip(rows, counts, strict=True))
        ]
        starts = [row.length for row in rows]
        for i, logits in enumerate(model.forward(steps)):
            np.testing.assert_allclose(logits, expected[i][starts[i] : starts[i] + counts[i]], atol=TOLERANCE)


def test_l3_batched_is_alone(exported: tuple[ArrayCheckpoint, Path, Manifest], model: Model) -> None:
    """A decode step gives the same numbers whatever else is in the batch: to the bit, but for mixtures of
    experts, whose kernel multiplies all tokens of an expert at once.
    """
    mixed = any(node.op_type == "MoE" for node in onnx.load(exported[1] / MODEL_NAME).graph.node)
    alone = []
    for tokens in TOKENS:
        row = model.arena.row()
        model.forward([Step(row, tokens[:20], wanted=0)])
        alone.append([model.forward([Step(row, [token])])[0] for token in tokens[20:]])
        model.arena.release(row)
    rows = [model.arena.row() for _ in TOKENS]
    model.forward([Step(row, tokens[:20], wanted=0) for row, tokens in zip(rows, TOKENS, strict=True)])
    for at in range(20, 40):
        together = model.forward([Step(row, [tokens[at]]) for row, tokens in zip(rows, TOKENS, strict=True)])
        for i, logits in enumerate(together):
            np.testing.assert_allclose(logits, alone[i][at - 20], rtol=0, atol=TOLERANCE if mixed else 0)


def test_l3_idle_rows_are_left_alone(model: Model, expected: list[Any]) -> None:
    """A row between two that are stepped, be it empty or full, neither changes nor is changed."""
    first, idle, empty, full, last = (model.arena.row() for _ in range(5))
    model.forward([Step(first, TOKENS[0][:9], 0), Step(idle, TOKENS[1][:9], 0), Step(last, TOKENS[2][:9], 0)])
    model.forward([Step(full, [1] * model.context_length, 0)])
    for at, count in ((9, 1), (10, 1), (11, 5), (16, 1)):
        logits = model.forward(
            [Step(first, TOKENS[0][at : at + count]), Step(last, TOKENS[2][at : at + count])]
        )
        np.testing.assert_allclose(logits[0][0], expected[0][at + count - 1], atol=TOLERANCE)
        np.testing.assert_allclose(logits[1][0], expected[2][at + count - 1], atol=TOLERANCE)
    for row, tokens, want in (
        (idle, TOKENS[1][9:10], expected[1][9]),
        (empty, TOKENS[0][:1], expected[0][0]),
    ):
        np.testing.assert_allclose(model.forward([Step(row, tokens)])[0][0], want, atol=TOLERANCE)


def test_l3_forks_and_trims(model: Model, expected: list[Any]) -> None:
    """A fork continues like its parent; a trimmed row as if it had never been longer."""
    row = model.arena.row()
    model.forward([Step(row, TOKENS[0][:20], 0)])
    fork = model.arena.fork(row, 12)
    model.forward([Step(row, TOKENS[1][:7], 0)])
    model.arena.trim(row, 15)
    logits = model.forward([Step(row, [TOKENS[0][15]]), Step(fork, [TOKENS[0][12]])])
    np.testing.assert_allclose(logits[0][0], expected[0][15], atol=TOLERANCE)
    np.testing.assert_allclose(logits[1][0], expected[0][12], atol=TOLERANCE)


def test_l3_capacity_grows(exported: tuple[ArrayCheckpoint, Path, Manifest], expected: list[Any]) -> None:
    """Growing the cache in the middle of a sequence changes nothing."""
    _, folder, manifest = exported
    model = Model(manifest, OrtProgram(folder, manifest, threads=1))
    row, other = model.arena.row(), model.arena.row()
    model.forward([Step(row, TOKENS[0][:20], 0), Step(other, TOKENS[1][:20], 0)])
    before = model.arena.capacity
    model.arena.reserve(min(before + 1, manifest.context_length))
    [model.arena.row() for _ in range(5)]
    logits = model.forward([Step(row, [TOKENS[0][20]]), Step(other, [TOKENS[1][20]])])
    np.testing.assert_allclose(logits[0][0], expected[0][20], atol=TOLERANCE)
    np.testing.assert_allclose(logits[1][0], expected[1][20], atol=TOLERANCE)
