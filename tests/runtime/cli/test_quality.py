"""`sardonyx verify`, `eval` and `compare`, and what `export` and `inspect` say of quality."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from command_line import Call
from random_models import UNMEASURED, random_checkpoint, save_folder
from sardonyx.export import texts
from sardonyx.export.api import export
from sardonyx.export.certificate import encode, read_certificate, seal
from sardonyx.models import architectures

EXAMPLE = architectures()["llama"].EXAMPLE


@pytest.fixture(autouse=True)
def _one_window_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "DEFAULT_WINDOWS", 2)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and artifacts of it; int8 has not been measured."""
    shelf = tmp_path_factory.mktemp("shelf")
    source = save_folder(random_checkpoint(EXAMPLE), shelf / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "DEFAULT_WINDOWS", 2)
        export(source, shelf / "int4", recipe="int4")
        export(source, shelf / "fp32", recipe="fp32")
    export(source, shelf / "int8", recipe="int8", options=UNMEASURED)
    return shelf


def edited(path: Path, **changes: Any) -> Path:
    """Another certificate, as sound as the one at the path."""
    certificate = read_certificate(path)
    overall = msgspec.structs.replace(certificate.overall, **changes.pop("overall", {}))
    found = seal(msgspec.structs.replace(certificate, overall=overall, **changes))
    return write(path.parent.parent / "edited.json", encode(found))


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_sound_artifact_is_said_to_be_so(call: Call, shelf: Path) -> None:
    result = call("verify", str(shelf / "int4"))
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == "Quality as certified (not measured now: that takes --against PATH)"
    assert any(line.startswith("Texts: windows of 128 tokens") for line in lines)
    rows = {line.split("  ")[0]: line for line in lines if line.endswith("ok")}
    assert {"files", "structure", "mean KL", "batch = alone: logits"} <= set(rows)
    assert "MISSED" not in result.out


@pytest.mark.parametrize("reference", ["model", "fp32"])
def test_measuring_anew_gives_the_same_figures(call: Call, shelf: Path, reference: str) -> None:
    result = call("verify", str(shelf / "int4"), "--against", str(shelf / reference), "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    stored = json.loads((shelf / "int4" / "certificate.json").read_bytes())
    assert found["certificate"] == stored
    assert all(check["met"] for check in found["checks"])


def test_what_was_not_measured_is_said_to_be_so(call: Call, shelf: Path) -> None:
    result = call("verify", str(shelf / "int8"))
    assert result.code == 0
    assert result.out.startswith("no certificate: its quality has not been measured")
    refused = call("verify", str(shelf / "int8"), "--max-kl", "0.1")
    assert refused.code == 2
    assert "has no certificate to hold to that" in refused.err


def test_a_certificate_can_be_stored_later(call: Call, shelf: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shelf / "int8", tmp_path / "int8")
    assert call("verify", str(folder), "--against", str(shelf / "fp32")).code == 0
    assert not (folder / "certificate.json").exists()
    assert call("verify", str(folder), "--against", str(shelf / "fp32"), "--store").code == 0
    assert call("verify", str(folder), "--max-kl", "1").code == 0


def test_the_gate_opens_and_shuts(call: Call, shelf: Path, tmp_path: Path) -> None:
    folder, baseline = shelf / "int4", shelf / "int4" / "certificate.json"
    report = tmp_path / "reports" / "report.xml"
    gate = ("verify", str(folder), "--junit", str(report))
    assert call(*gate, "--baseline", str(baseline), "--max-kl", "0.5").code == 0
    assert ElementTree.parse(report).getroot().get("failures") == "0"
    better = edited(baseline, overall={"kl_mean": 0.001, "top1": 0.99})
    shut = call(*gate, "--baseline", str(better), "--max-kl", "0.001")
    assert shut.code == 1
    *_, heading, budget, kl, top1, error = shut.err.splitlines()
    assert heading.split() == ["MISSED", "MEASURED", "DEMANDED"]
    assert budget.startswith("mean KL within --max-kl")
    assert kl.startswith("mean KL beside the baseline")
    assert top1.startswith("top-1 agreement beside the baseline")
    assert error.startswith(f"error: {folder}: 3 of ")
    assert ElementTree.parse(report).getroot().get("failures") == "3"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "other"}, "which is no baseline for"),
        ({"texts_sha256": "00"}, "measured on other texts"),
        ({"format": 2}, "certificate format 2"),
    ],
)
def test_what_is_no_baseline(call: Call, shelf: Path, changes: dict[str, Any], said: str) -> None:
    baseline = edited(shelf / "int4" / "certificate.json", **changes)
    result = call("verify", str(shelf / "int4"), "--baseline", str(baseline))
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert result.err.splitlines()[-1].startswith(f"error: {baseline}: ")


def test_a_baseline_that_was_touched(call: Call, shelf: Path, tmp_path: Path) -> None:
    data = (shelf / "int4" / "certificate.json").read_bytes()
    baseline = write(tmp_path / "old.json", data.replace(b'"model": "', b'"model": "x'))
    result = call("verify", str(shelf / "int4"), "--baseline", str(baseline))
    assert result.code == 2
    assert f"{baseline}: edited since it was measured" in result.err


def test_altered_files_are_named_and_reported(call: Call, shelf: Path, tmp_path: Path) -> None:
    folder, report = shutil.copytree(shelf / "int4", tmp_path / "int4"), tmp_path / "report.xml"
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[100] ^= 1
    (folder / "model.onnx.data").write_bytes(data)
    result = call("verify", str(folder), "--junit", str(report))
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert f"{folder / 'model.onnx.data'}: altered" in result.err
    (failure,) = ElementTree.parse(report).getroot().iter("failure")
    assert "model.onnx.data" in failure.get("message", "")


@pytest.mark.parametrize("option", [("--thorough",), ("--store",), ("--text", "x.txt")])
def test_options_that_need_a_reference(call: Call, shelf: Path, option: tuple[str, ...]) -> None:
    result = call("verify", str(shelf / "int4"), *option)
    assert result.code == 2
    assert "add --against PATH" in result.err


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "empty"), (b"\xff\xfe\x00", "not text in UTF-8"), (b"short", "less than a window of 128")],
)
@pytest.mark.parametrize("command", ["verify", "eval"])
def test_texts_that_cannot_be_measured_on(
    call: Call, shelf: Path, tmp_path: Path, command: str, data: bytes, said: str
) -> None:
    path = write(tmp_path / "text.txt", data)
    against = ("--against", str(shelf / "fp32"))
    result = call(command, str(shelf / "int4"), "--text", str(path), *against)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert result.err.splitlines()[-1].startswith(f"error: {path}: ")


def test_perplexity_of_a_text(call: Call, shelf: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "text.txt", b"what is written here is measured. " * 20)
    result = call("eval", str(shelf / "int4"), "--text", str(path))
    assert result.code == 0, result.err
    heading, row, whole, *_, convention = result.out.splitlines()
    assert heading.split() == ["TEXT", "TOKENS", "PERPLEXITY"]
    assert row.split()[:2] == ["text.txt", "635"]
    assert whole.split()[0] == "all"
    assert convention.startswith("Texts: windows of 128 tokens")
    alone = json.loads(call("eval", str(shelf / "int4"), "--text", str(path), "--json").out)
    against = ("--against", str(shelf / "model"), "--json")
    both = json.loads(call("eval", str(shelf / "int4"), "--text", str(path), *against).out)
    assert set(alone["texts"]["all"]) == {"tokens", "windows", "perplexity", "perplexity_error"}
    assert both["texts"]["all"]["perplexity"] == alone["texts"]["all"]["perplexity"]
    assert both["texts"]["all"]["kl_mean"] > 0
    shown = call("eval", str(shelf / "int4"), "--text", str(path), "--against", str(shelf / "model"))
    assert "MEAN KL" in shown.out


def test_side_by_side(call: Call, shelf: Path, tmp_path: Path) -> None:
    folders = [str(shelf / name) for name in ("fp32", "int8", "int4")]
    quick = ("--prompt-tokens", "8", "--new-tokens", "4", "--repeats", "2")
    result = call("compare", *folders, *quick, "--plot", str(tmp_path / "picture.png"))
    assert result.code == 0, result.err
    rows = {line.split()[0]: line for line in result.out.splitlines()}
    assert list(rows) == ["ARTIFACT", "fp32", "int8", "int4"]
    assert "not measured" in rows["int8"]
    assert "0.0000" in rows["fp32"]
    assert "texts: windows of 128 tokens" in result.err
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads(call("compare", *folders, *quick, "--json").out)
    assert [figure["recipe"] for figure in figures] == ["fp32", "int8", "int4"]
    assert figures[1]["quality"] is None
    assert all(figure["decode_tokens_per_s"] > 0 for figure in figures)


def test_a_picture_is_refused_before_time_is_spent(
    call: Call, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = call("compare", str(shelf / "int4"), "--plot", str(tmp_path / "picture.jpeg"))
    assert (result.code, result.out) == (2, "")
    assert ".png, .svg or .pdf" in result.err
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = call("compare", str(shelf / "int4"), "--plot", str(tmp_path / "picture.png"))
    assert (result.code, result.out) == (2, "")
    assert "pip install 'sardonyx[plot]'" in result.err


def test_what_cannot_be_compared_is_said(call: Call, shelf: Path, tmp_path: Path) -> None:
    other = random_checkpoint(EXAMPLE, seed=1)
    source = save_folder(other, tmp_path / "other")
    (tmp_path / "text.txt").write_text("some other text, which is somewhat longer. " * 9)
    export(source, tmp_path / "int4", options=UNMEASURED)
    against = ("--against", str(source), "--text", str(tmp_path / "text.txt"), "--store")
    assert call("verify", str(tmp_path / "int4"), *against).code == 0
    quick = ("--prompt-tokens", "8", "--new-tokens", "2", "--repeats", "1")
    result = call("compare", str(shelf / "int4"), str(tmp_path / "int4"), *quick)
    assert "made of different sources" in result.err
    assert "measured on different texts: their qualities cannot be compared" in result.err


def test_export_ends_with_what_was_measured(call: Call, shelf: Path, tmp_path: Path) -> None:
    result = call("export", str(shelf / "model"), "-o", str(tmp_path / "out"))
    assert result.code == 0, result.err
    last = result.err.splitlines()[-1]
    assert last.startswith("measured on 1,270 tokens: mean KL 0.0")
    facts = json.loads(call("inspect", str(tmp_path / "out"), "--json").out)
    assert facts["quality"]["tokens"] == 1270
    assert last in call("inspect", str(tmp_path / "out")).out
    result = call("export", str(shelf / "model"), "-o", str(tmp_path / "quick"), "--no-verify")
    assert result.err.splitlines()[-1] == "no certificate: its quality has not been measured"
    assert json.loads(call("inspect", str(tmp_path / "quick"), "--json").out)["quality"] is None


def test_an_export_that_fails_shows_what_it_missed(
    call: Call, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from sardonyx.export import api
    from sardonyx.export.certificate import Limits

    strict = replace(api.RECIPES["int4"], limits=Limits(kl_mean=1e-9))
    monkeypatch.setattr(api, "RECIPES", {"int4": strict})
    words = ("export", str(shelf / "model"), "-o", str(tmp_path / "out"))
    result = call(*words)
    assert result.code == 1
    *_, heading, row, error = result.err.splitlines()
    assert heading.split() == ["MISSED", "MEASURED", "DEMANDED"]
    assert row.startswith("mean KL")
    assert row.endswith("at most 1e-09")
    assert error.startswith("error: ")
    assert "nothing was written" in error
    assert not (tmp_path / "out").exists()
    assert call(*words, "--keep-failed").code == 1
    assert read_certificate(tmp_path / "out.failed" / "certificate.json")
