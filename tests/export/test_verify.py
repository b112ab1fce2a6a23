"""Exports that prove themselves: what is measured, what is stored, and what is refused."""

import json
import shutil
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from random_models import UNMEASURED, ArrayCheckpoint, random_checkpoint
from sardonyx.export import api, texts
from sardonyx.export.api import Options, export
from sardonyx.export.certificate import Certificate, Limits, checks, read_certificate
from sardonyx.export.check import check
from sardonyx.export.numpy_graph import NumpyGraph
from sardonyx.export.recipes import RECIPES, Recipe
from sardonyx.export.reference import reference_at
from sardonyx.export.verify import Scope, certify, store
from sardonyx.models import architectures, describe
from sardonyx.runtime.errors import ArtifactError, OutputError, RequestError, VerificationFailed
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.manifest import read_manifest

EXAMPLE = architectures()["llama"].EXAMPLE


@pytest.fixture(autouse=True)
def _one_window_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts enough for what is tested here."""
    monkeypatch.setattr(texts, "DEFAULT_WINDOWS", 2)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's artifacts of every kind: measured int4, unmeasured int8, the reference."""
    shelf = tmp_path_factory.mktemp("shelf")
    checkpoint = random_checkpoint(EXAMPLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "DEFAULT_WINDOWS", 2)
        export(checkpoint, shelf / "int4", recipe="int4", options=Options(calibrate=False))
    export(checkpoint, shelf / "int8", recipe="int8", options=UNMEASURED)
    export(checkpoint, shelf / "fp32", recipe="fp32", options=UNMEASURED)
    return shelf


def certificate_of(folder: Path) -> Certificate:
    return read_certificate(folder / "certificate.json")


def limited(monkeypatch: pytest.MonkeyPatch, **limits: float) -> None:
    """Have int4 promise this."""
    recipe = replace(RECIPES["int4"], limits=Limits(**limits))
    monkeypatch.setattr(api, "RECIPES", {**RECIPES, "int4": recipe})


def logits_by_numpy(checkpoint: ArrayCheckpoint, recipe: Recipe, window: list[int]) -> np.ndarray:
    """What is left of the model by the recipe's rounding of weights, computed in float64."""

    def fetch(weight: object) -> np.ndarray:
        array = checkpoint.fetch(weight)
        return array if array.ndim == 1 else recipe.quantizer(weight.name).dequantized(array)

    return NumpyGraph(describe(checkpoint.config), fetch).run(window)


def test_the_figures_are_those_of_a_slow_computation(shelf: Path) -> None:
    """Models in numpy, softmax in numpy: weights rounded as the recipe says, activations not."""
    checkpoint = random_checkpoint(EXAMPLE)
    found = certificate_of(shelf / "int4")
    kl, nll = [], []
    for windows in texts.own_texts(LLM.load(shelf / "int4")).windows.values():
        for window in windows:
            p, q = (
                logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
                for logits in (
                    logits_by_numpy(checkpoint, RECIPES[recipe], list(window))[:-1]
                    for recipe in ("fp32", "int4")
                )
            )
            kl.append((np.exp(p) * (p - q)).sum(-1))
            nll.append(-p[np.arange(len(p)), window[1:]])
    assert found.overall.tokens == sum(map(len, kl))
    assert found.overall.reference_perplexity == pytest.approx(np.exp(np.concatenate(nll).mean()), rel=1e-5)
    assert found.overall.kl_mean == pytest.approx(np.concatenate(kl).mean(), rel=0.05)


def test_a_certificate_is_of_exactly_these_files(shelf: Path) -> None:
    manifest, found = read_manifest(shelf / "int4"), certificate_of(shelf / "int4")
    assert set(manifest.files) == {*found.files, "certificate.json"}
    assert all(manifest.files[name] == record for name, record in found.files.items())
    assert (found.model, found.recipe, found.source) == (manifest.name, "int4", manifest.source)
    assert found.limits == msgspec.convert(RECIPES["int4"].limits, Limits, strict=False)
    assert found.reference.startswith("random as fp32")
    assert set(found.texts) == {"chat", "code", "languages", "numbers", "prose"}
    assert found.overall.windows == 10
    assert len(found.greedy) == len(texts.GREEDY_PROMPTS)
    assert all(check.met for check in checks(found))
    LLM.load(shelf / "int4")


def test_the_same_export_has_the_same_certificate(shelf: Path, tmp_path: Path) -> None:
    export(random_checkpoint(EXAMPLE), tmp_path / "again", recipe="int4", options=Options(calibrate=False))
    for name in ("certificate.json", "sardonyx.json"):
        assert (tmp_path / "again" / name).read_bytes() == (shelf / "int4" / name).read_bytes()


def test_float32_is_its_own_reference(tmp_path: Path) -> None:
    export(random_checkpoint(EXAMPLE), tmp_path / "out", recipe="fp32")
    found = certificate_of(tmp_path / "out")
    assert found.reference == "itself: float32 is the reference"
    assert (found.overall.kl_max, found.overall.top1, found.overall.perplexity_ratio) == (0, 1, 1)
    assert found.greedy == []
    assert max(invariant.worst for invariant in found.invariants) < 1e-4


def test_what_misses_its_limits_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, kl_mean=1e-6, top1=0.999)
    with pytest.raises(VerificationFailed, match=r"2 of .* not met; nothing was written: choose") as caught:
        export(random_checkpoint(EXAMPLE), tmp_path / "out", recipe="int4")
    assert [row[0] for row in caught.value.table] == ["MISSED", "mean KL", "top-1 agreement"]
    assert list(tmp_path.iterdir()) == []


def test_what_misses_its_limits_does_not_replace_what_is_there(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shelf / "int4", tmp_path / "out")
    limited(monkeypatch, kl_mean=1e-6)
    with pytest.raises(VerificationFailed):
        export(random_checkpoint(EXAMPLE), tmp_path / "out", recipe="int4", options=Options(force=True))
    assert certificate_of(tmp_path / "out") == certificate_of(shelf / "int4")


def test_what_fails_can_be_kept_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, kl_mean=1e-6)
    keep = Options(keep_failed=True)
    with pytest.raises(VerificationFailed, match=r"kept as .*out\.failed"):
        export(random_checkpoint(EXAMPLE), tmp_path / "out", recipe="int4", options=keep)
    assert [path.name for path in tmp_path.iterdir()] == ["out.failed"]
    assert [c.what for c in checks(certificate_of(tmp_path / "out.failed")) if not c.met] == ["mean KL"]
    assert LLM.load(tmp_path / "out.failed").generate([1, 2]).tokens
    with pytest.raises(OutputError, match=r"out\.failed exists already"):
        export(random_checkpoint(EXAMPLE), tmp_path / "out", recipe="int4", options=keep)
    with pytest.raises(VerificationFailed):
        export(random_checkpoint(EXAMPLE), tmp_path / "out", options=replace(keep, force=True))


def test_broken_structure_is_refused_without_measuring_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sardonyx.export.quantizers import nbits

    monkeypatch.setattr(nbits, "ACCURACY_LEVEL", 0)
    for options in (UNMEASURED, Options()):
        with pytest.raises(VerificationFailed) as caught:
            export(random_checkpoint(EXAMPLE), tmp_path / "out", recipe="int4", options=options)
        assert any("accuracy_level is not set" in row[1] for row in caught.value.table)
    assert list(tmp_path.iterdir()) == []


def test_logits_that_are_no_numbers_fail(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(EXAMPLE)
    norm = np.full(EXAMPLE["hidden_size"], 3e38, np.float32)
    arrays = {**checkpoint.arrays, "model.norm.weight": norm}
    with pytest.raises(VerificationFailed, match="its logits are not numbers"):
        export(replace(checkpoint, arrays=arrays), tmp_path / "out", recipe="fp32")
    assert list(tmp_path.iterdir()) == []


def test_an_unmeasured_artifact_says_so_by_having_no_certificate(shelf: Path) -> None:
    assert not (shelf / "int8" / "certificate.json").exists()
    certificate, found = check(shelf / "int8", None, Scope())
    assert certificate is None
    assert all(c.met for c in found)
    assert {c.what for c in found} >= {"files", "structure", "batch = alone: logits"}


def test_it_can_be_certified_later(shelf: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shelf / "int8", tmp_path / "int8")
    certificate, found = check(folder, shelf / "fp32", Scope())
    assert certificate is not None
    assert all(c.met for c in found)
    manifest = store(folder, certificate)
    assert manifest == read_manifest(folder)
    assert certificate_of(folder) == certificate
    LLM.load(folder)
    again, _ = check(folder, None, Scope())
    assert again == certificate


def test_float32_measured_against_another_copy_of_itself(shelf: Path) -> None:
    """The reference uses its weights as they lie in the file, which turns last bits."""
    certificate, found = check(shelf / "fp32", shelf / "fp32", Scope())
    assert certificate is not None
    assert certificate.overall.kl_max < 1e-9
    assert all(c.met for c in found)
    assert [run.diverged_at for run in certificate.greedy] == [None] * len(texts.GREEDY_PROMPTS)


def test_a_thorough_measurement_takes_more_windows(shelf: Path) -> None:
    llm = LLM.load(shelf / "int8")
    assert Scope(thorough=True).texts(llm).count > 5 * Scope().texts(llm).count


def test_a_users_text_is_what_is_measured_on(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("all of this is mine " * 40)
    found = certify(shelf / "int8", shelf / "fp32", Limits(), Scope(files=(tmp_path / "mine.txt",)))
    assert set(found.texts) == {"mine.txt"}
    assert found.overall == found.texts["mine.txt"]


def test_another_model_is_no_reference(shelf: Path, tmp_path: Path) -> None:
    export(random_checkpoint({**EXAMPLE, "vocab_size": 80}), tmp_path / "other", recipe="fp32")
    with pytest.raises(RequestError, match="has another tokenizer"):
        check(shelf / "int4", tmp_path / "other", Scope())
    with pytest.raises(
        RequestError, match="recipe int8 is no reference; give the source, or its fp32 artifact"
    ):
        check(shelf / "int4", shelf / "int8", Scope())


def test_touched_certificates_and_manifests_are_named(shelf: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shelf / "int4", tmp_path / "int4")
    path, manifest = folder / "certificate.json", folder / "sardonyx.json"
    original = path.read_text()
    fields = json.loads(original)
    path.write_text(original.replace('"top1": ', '"top1": 0'))
    for use in (LLM.load, lambda folder: check(folder, None, Scope())):
        with pytest.raises(ArtifactError, match=r"certificate\.json"):
            use(folder)
    fields["overall"]["kl_mean"] = 0.0
    path.write_text(json.dumps(fields))
    with pytest.raises(ArtifactError, match=r"certificate\.json: edited since it was measured"):
        LLM.load(folder)
    path.write_text(original)
    LLM.load(folder)
    manifest.write_text(manifest.read_text().replace('"context_length": 128', '"context_length": 256'))
    with pytest.raises(ArtifactError, match=r"sardonyx\.json: altered since it was certified"):
        LLM.load(folder)


def test_the_certificate_of_another_artifact_does_not_fit(shelf: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shelf / "int8", tmp_path / "int8")
    shutil.copy(shelf / "int4" / "certificate.json", folder)
    with pytest.raises(ArtifactError, match="not of this artifact"):
        LLM.load(folder)
    store(folder, certificate_of(shelf / "int4"))
    with pytest.raises(ArtifactError, match="altered since it was certified"):
        LLM.load(folder)


def test_a_full_disk_is_seen_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 0, 10**5))
    with pytest.raises(OutputError, match=r"0\.0 GB are free, and measuring takes up to .*--no-verify"):
        export(random_checkpoint(EXAMPLE), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_reference_is_gone_when_it_has_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from random_models import save_folder

    source = save_folder(random_checkpoint(EXAMPLE), tmp_path / "model")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    @contextmanager
    def used() -> Iterator[Path]:
        with reference_at(source, 64) as folder:
            yield folder

    with used() as folder:
        assert read_manifest(folder).recipe == "fp32"
        assert read_manifest(folder).context_length == 64
    assert list((tmp_path / "temporary").iterdir()) == []


def test_every_stage_reports_its_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    export(random_checkpoint(EXAMPLE), tmp_path / "out", progress=lambda *report: seen.append(report))
    stages = list(dict.fromkeys(what for _, _, what in seen))
    assert stages == [
        "writing random as fp32",
        "writing random as int4",
        "measuring random as int4",
        "decoding beside the reference",
        "feeding the same tokens in other ways",
    ]
    for stage in stages:
        counts = [(done, total) for done, total, what in seen if what == stage]
        assert counts == sorted(counts)
        assert counts[-1][0] == counts[-1][1]
