"""What the layers of every architecture multiply is seen as it is, and makes what is written better."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from random_models import ArrayCheckpoint, letters_tokenizer, random_checkpoint
from sardonyx.export import calibration
from sardonyx.export.api import Options, export
from sardonyx.export.calibration import TEXT, Calibration, windows_of_text
from sardonyx.export.checkpoint import TokenizerFiles
from sardonyx.export.numpy_graph import Float64, NumpyGraph
from sardonyx.models import architectures, describe
from sardonyx.models.graph import Linear, Weight
from sardonyx.runtime.errors import SourceError
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.manifest import read_manifest
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.tokenizer import Tokenizer

ARCHITECTURES = architectures()
EXAMPLE = ARCHITECTURES["llama"].EXAMPLE
WINDOWS = np.random.default_rng(5).integers(1, 99, (3, 32)).tolist()
CALIBRATED = Options(verify=False)


class Watching(NumpyGraph):
    """The reference, which tells what it multiplies."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: dict[Weight, Float64] = {}

    def linear(self, x: Float64, *layers: Linear) -> tuple[Float64, ...]:
        self.seen |= {layer.weight: x for layer in layers}
        return super().linear(x, *layers)


@pytest.fixture(autouse=True)
def short_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "TOKENS", 600)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_moments_are_those_of_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "SPAN", 48)
    checkpoint = random_checkpoint(ARCHITECTURES[name].EXAMPLE)
    decoder = describe(checkpoint.config)
    seen: dict[Weight, list[Float64]] = {}
    for window in WINDOWS:
        graph = Watching(decoder, checkpoint.fetch)
        graph.run(window)
        for weight, x in graph.seen.items():
            seen.setdefault(weight, []).append(x)
    work = Calibration(decoder, checkpoint, WINDOWS, lambda weight: True)
    found = set()
    for stage in decoder.stages():
        work.run(stage)
        for weight in work.multipliers:
            x = np.concatenate(seen[weight])
            for at, square in enumerate(work.measured(weight) or ()):
                part = x[:, at * 48 : (at + 1) * 48]
                expected = part.T @ part / len(part)
                np.testing.assert_allclose(square, expected, atol=3e-3 * np.abs(expected).max())
            found.add(weight)
    assert found == {weight for weight in seen if ".experts." not in weight.name}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_exports_calibrated(name: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(ARCHITECTURES[name].EXAMPLE)
    manifest = export(checkpoint, tmp_path / "out", recipe="int4", options=CALIBRATED)
    assert manifest.calibration is not None
    assert 500 < manifest.calibration.tokens <= 600
    assert read_manifest(tmp_path / "out") == manifest
    assert LLM.load(tmp_path / "out").generate([1, 2, 3], SamplingParams(max_tokens=2)).tokens


def test_the_same_export_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(random_checkpoint(EXAMPLE), tmp_path / name, recipe="int4", options=CALIBRATED)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_without_calibration_the_manifest_says_so(tmp_path: Path) -> None:
    options = Options(verify=False, calibrate=False)
    assert (
        export(random_checkpoint(EXAMPLE), tmp_path / "a", recipe="int4", options=options).calibration is None
    )
    assert (
        export(random_checkpoint(EXAMPLE), tmp_path / "b", recipe="fp32", options=CALIBRATED).calibration
        is None
    )


class OneWord(ArrayCheckpoint):
    """A checkpoint whose tokenizer knows one token, and takes any text for it."""

    def tokenizer(self) -> TokenizerFiles:
        whole = letters_tokenizer(1).replace(b'"Regex": "."', b'"Regex": "never to be found"')
        return TokenizerFiles(whole, None, None, (0,), {"eos_token": "<end>"})


def test_a_text_of_one_token_calibrates_nothing(tmp_path: Path) -> None:
    checkpoint = OneWord(EXAMPLE, random_checkpoint(EXAMPLE).arrays)
    assert export(checkpoint, tmp_path / "out", recipe="int4", options=CALIBRATED).calibration is None


def test_activations_beyond_float32_are_said_to_be(tmp_path: Path) -> None:
    arrays = dict(random_checkpoint(EXAMPLE).arrays)
    arrays["model.layers.0.mlp.up_proj.weight"] = arrays["model.layers.0.mlp.up_proj.weight"] * np.float32(
        1e37
    )
    arrays["model.layers.0.mlp.gate_proj.weight"] = arrays[
        "model.layers.0.mlp.gate_proj.weight"
    ] * np.float32(1e3)
    with pytest.raises(
        SourceError, match=r"random: what model\.layers\.0\.mlp\.down_proj\.weight multiplies grows"
    ):
        export(ArrayCheckpoint(EXAMPLE, arrays), tmp_path / "out", recipe="int4-small", options=CALIBRATED)
    assert list(tmp_path.iterdir()) == []


def test_windows_come_from_all_over_the_text(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(letters_tokenizer(99))
    windows = windows_of_text(TEXT, tmp_path, None, 100)
    assert [len(window) for window in windows] == [100] * 6
    text = files("sardonyx.export").joinpath(TEXT).read_text("utf-8")
    assert windows[0][:9] == [ord(letter) - 32 for letter in text[:9]]
    tokens = Tokenizer.load(tmp_path).encode(text)
    assert windows[3] == tokens[len(tokens) // 200 * 100 :][:100]  # the middle one lies in the middle


def word_runs(text: str, length: int = 7) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(*(words[i:] for i in range(length)), strict=False))


@pytest.mark.parametrize("name", ["calibration.txt", "rehearsal.txt"])
def test_no_quality_is_measured_on_what_was_calibrated_on(name: str) -> None:
    package = files("sardonyx.export")
    calibrated_on = word_runs(package.joinpath(name).read_text("utf-8"))
    assert len(calibrated_on) > 300
    for text in package.joinpath("texts").iterdir():
        assert not calibrated_on & word_runs(text.read_text("utf-8")), text.name
