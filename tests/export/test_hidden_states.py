"""Hidden states as an output: what they are, and that nothing else changes."""

from pathlib import Path

import numpy as np
import pytest

from random_models import random_checkpoint
from sardonyx.export.api import Options, export
from sardonyx.export.numpy_graph import NumpyGraph
from sardonyx.models import architectures, describe
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.manifest import MODEL_NAME, WEIGHTS_NAME, read_manifest
from sardonyx.runtime.model import Model, Step

TOKENS = np.random.default_rng(4).integers(1, 50, (2, 20)).tolist()


def model_of(folder: Path) -> Model:
    manifest = read_manifest(folder)
    return Model(manifest, OrtProgram(folder, manifest, threads=1))


@pytest.mark.parametrize("name", architectures())
def test_they_are_what_the_head_reads(name: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(architectures()[name].EXAMPLE)
    export(checkpoint, tmp_path / "a", recipe="fp32", options=Options(verify=False, hidden_states=True))
    export(checkpoint, tmp_path / "b", recipe="fp32", options=Options(verify=False))
    model, plain = model_of(tmp_path / "a"), model_of(tmp_path / "b")
    assert model.hidden_size == describe(checkpoint.config).hidden
    assert plain.hidden_size == 0
    for cut in (20, 1):
        rows, plain_rows = ([m.arena.row() for _ in TOKENS] for m in (model, plain))
        for row, twin, tokens in zip(rows, plain_rows, TOKENS, strict=True):
            graph = NumpyGraph(describe(checkpoint.config), checkpoint.fetch)
            for start in range(0, 20, cut):
                piece = tokens[start : start + cut]
                (output,) = model.outputs([Step(row, piece, wanted=min(2, cut))])
                graph.run(piece)
                np.testing.assert_allclose(output.hidden, graph.hidden[-2:], atol=2e-5)
                assert np.array_equal(
                    output.logits, plain.forward([Step(twin, piece, wanted=min(2, cut))])[0]
                )
    assert (tmp_path / "a" / WEIGHTS_NAME).read_bytes() == (tmp_path / "b" / WEIGHTS_NAME).read_bytes()
    assert (tmp_path / "a" / MODEL_NAME).read_bytes() != (tmp_path / "b" / MODEL_NAME).read_bytes()
