"""OpenVINO's provider, really run (`make openvino`), by the package that has it built in: any x86 will do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from elsewhere import logits, mean_kl, says_the_same
from foreign_graphs import VOCAB, Graph, reference, write_settings
from random_models import random_checkpoint
from sardonyx.export.api import Options, export
from sardonyx.export.check import check
from sardonyx.export.verify import Scope, store
from sardonyx.models import architectures
from sardonyx.runtime.backends import sessions
from sardonyx.runtime.backends.providers import PROVIDERS, place
from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.fetch import pull
from sardonyx.runtime.integrity import checking
from sardonyx.runtime.library import DEFAULT_MODEL, Library
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.manifest import read_manifest

pytestmark = pytest.mark.openvino

OPENVINO = place("openvino", ["device_type=CPU"])
PORTABLE = Options(verify=False, calibrate=False, target="portable")


@pytest.fixture(scope="module", autouse=True)
def device() -> None:
    assert PROVIDERS["openvino"] in sessions.present(), "run this with: make openvino"


@pytest.mark.parametrize("recipe", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "gemma2", "phi3"])
def test_logits_are_those_of_the_cpu(name: str, recipe: str, tmp_path: Path) -> None:
    config = {**architectures()[name].EXAMPLE}
    export(random_checkpoint(config), tmp_path / "artifact", recipe=recipe, options=PORTABLE)
    tokens = [int(token) for token in np.random.default_rng(0).integers(0, config["vocab_size"], 60)]
    here, there = (LLM.load(tmp_path / "artifact", threads=1, place=p) for p in (place("cpu"), OPENVINO))
    np.testing.assert_allclose(logits(there, tokens), logits(here, tokens), atol=2e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3"])
def test_graphs_for_cuda_need_no_newer_onnxruntime(name: str, tmp_path: Path) -> None:
    """On its CPU: what onnxruntime-gpu, which follows behind, is asked for."""
    checkpoint = random_checkpoint({**architectures()[name].EXAMPLE})
    tokens = np.random.default_rng(0).integers(0, checkpoint.config["vocab_size"], 60).tolist()
    for target, recipe in (("portable", "fp32"), ("cuda", "fp16")):
        export(checkpoint, tmp_path / target, recipe=recipe, options=replace(PORTABLE, target=target))
    expected, found = (logits(LLM.load(tmp_path / target), tokens) for target in ("portable", "cuda"))
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("recipe", ["q8", "int4", "int4-small"])
def test_blocks_are_multiplied_without_rounding_activations(recipe: str, tmp_path: Path) -> None:
    """The CPU rounds activations to 8 bits, OpenVINO does not: both are near float32, in their own ways."""
    config = {**architectures()["llama"].EXAMPLE}
    export(random_checkpoint(config), tmp_path / "artifact", recipe=recipe, options=PORTABLE)
    tokens = [int(token) for token in np.random.default_rng(0).integers(0, config["vocab_size"], 60)]
    here, there = (LLM.load(tmp_path / "artifact", threads=1, place=p) for p in (place("cpu"), OPENVINO))
    expected, found = logits(here, tokens), logits(there, tokens)
    assert np.abs(found - expected).max() < 0.15
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.9


def test_a_model_is_certified_there(tmp_path: Path) -> None:
    """Measured against the CPU, stored beside the certificate of the CPU, and whole when it is loaded."""
    folder, text = tmp_path / "it", tmp_path / "text.txt"
    export(random_checkpoint({**architectures()["llama"].EXAMPLE}), folder, recipe="fp32", options=PORTABLE)
    text.write_text("An onyx is a banded stone; " * 40)
    certificate, checks = check(folder, folder, Scope(files=(text,), place=OPENVINO))
    assert certificate is not None
    assert certificate.machine.provider == "OpenVINOExecutionProvider"
    assert certificate.machine.onnxruntime == sessions.VERSION
    assert all(one.met for one in checks), [one for one in checks if not one.met]
    store(folder, certificate, "openvino")
    assert (folder / "certificate-openvino.json").is_file()
    with checking(folder, read_manifest(folder)):
        pass


@pytest.mark.parametrize("graph", [Graph(), Graph("counted"), Graph(kept=True), Graph("by_shape")], ids=str)
def test_graphs_of_neighbours_run(graph: Graph, tmp_path: Path) -> None:
    graph.write(write_settings(tmp_path / "theirs") / "model.onnx")
    tokens = [int(token) for token in np.random.default_rng(0).integers(1, VOCAB, 60)]
    found = logits(LLM.load(tmp_path / "theirs", place=OPENVINO), tokens)
    np.testing.assert_allclose(found, reference(tokens, graph), atol=1e-4)


def test_what_would_run_on_the_cpu_is_refused(tmp_path: Path) -> None:
    """onnxruntime 1.24 lacks an input of this project's attention; a neighbour's has OpenVINO none for."""
    Graph(in_place=True).write(write_settings(tmp_path / "theirs") / "model.onnx")
    with pytest.raises(ArtifactError, match=r"no kernel for GroupQueryAttention.*--target portable"):
        LLM.load(tmp_path / "theirs", place=OPENVINO)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2") / "fp32"
    source = pull(DEFAULT_MODEL, Library.of_user(), lambda done, total, what: None)
    options = Options(context=256, verify=False, target="portable")
    export(source, folder, recipe="fp32", options=options)
    return folder


def test_smollm2_says_what_it_says_on_the_cpu(smollm2: Path) -> None:
    assert says_the_same(smollm2, OPENVINO, max_tokens=8)


def test_smollm2_diverges_by_nothing(smollm2: Path, tmp_path: Path) -> None:
    assert mean_kl(smollm2, OPENVINO, tmp_path / "text.txt", sentences=16) < 1e-6
