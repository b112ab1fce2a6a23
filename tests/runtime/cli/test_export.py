"""`sardonyx export`, `inspect`, and the first use of a model: from checkpoint to artifact."""

import json
import sys
from pathlib import Path

import pytest

from command_line import Call
from random_models import random_checkpoint
from sardonyx.export.certificate import stored_certificate
from sardonyx.models import architectures
from sardonyx.runtime.cli import first_use
from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.library import Library
from sardonyx.runtime.manifest import read_manifest

EXAMPLE = architectures()["llama"].EXAMPLE
ready = first_use.ready_artifact


def write_model(folder: Path) -> Path:
    """A tiny Hugging Face folder with random weights."""
    from safetensors.numpy import save_file

    checkpoint = random_checkpoint(EXAMPLE)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**EXAMPLE, "eos_token_id": 0}))
    (folder / "tokenizer.json").write_bytes(checkpoint.tokenizer().tokenizer_json)
    save_file(dict(checkpoint.arrays), folder / "model.safetensors")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny")


def test_a_path_is_exported_to_where_it_should_go(call: Call, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = call("export", str(model), "-o", str(out), "--recipe", "fp32", "--context", "32")
    assert result.code == 0, result.err
    assert result.out == ""
    assert result.err.startswith("writing tiny as fp32\n")
    assert f"exported {model} as fp32 (" in result.err
    assert read_manifest(out).context_length == 32
    again = call("export", str(model), "-o", str(out), "--recipe", "fp32")
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "--force" in again.err
    assert call("export", str(model), "-o", str(out), "--force").code == 0
    assert read_manifest(out).recipe == "int4"


def test_a_path_without_a_place_goes_to_the_library(call: Call, model: Path, library: Library) -> None:
    assert call("export", str(model)).code == 0
    assert [entry.name for entry in library.entries()] == ["tiny-int4"]
    result = call("run", "tiny", "Hi", "--raw", "--max-tokens", "3", "--ignore-eos")
    assert result.code == 0
    assert "2 prompt tokens, 3 generated" in result.err


def test_a_cache_in_8_bits_is_a_matter_of_export(call: Call, model: Path, library: Library) -> None:
    result = call("export", str(model), "--recipe", "fp32", "--kv", "int8", "--no-verify")
    assert result.code == 0, result.err
    assert [entry.name for entry in library.entries()] == ["tiny-fp32-kv-int8"]
    assert "int8" in call("inspect", "tiny:fp32-kv-int8").out
    assert call("run", "tiny:fp32-kv-int8", "Hi", "--raw", "--max-tokens", "3").code == 0
    wrong = call("export", str(model), "--kv", "int3")
    assert (wrong.code, wrong.err) == (2, "error: a cache of 'int3' is not known; known: float32, int8\n")


def test_commands_take_the_artifact_with_the_cache_that_is_asked_for(
    call: Call, model: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(first_use, "ready_artifact", lambda name: asked.append(name) or ready(name))
    for kv in ("float32", "int8"):
        assert call("export", str(model), "--kv", kv, "--no-verify").code == 0
        assert call("run", "tiny", "Hi", "--kv", kv, "--raw", "--max-tokens", "3").code == 0
    assert asked == ["tiny:int4", "tiny:int4-kv-int8"]
    assert call("bench", "tiny", "--kv", "int8", "--prompt-tokens", "4", "--new-tokens", "2").code == 0
    assert asked[2] == "tiny:int4-kv-int8"
    assert "no chat template" in call("chat", "tiny", "--kv", "int8").err
    assert asked[-1] == "tiny:int4-kv-int8"
    wide, narrow = (str(library.artifact_folder("tiny", name)) for name in ("int4", "int4-kv-int8"))
    assert call("run", narrow, "Hi", "--kv", "int8", "--raw", "--max-tokens", "3").code == 0
    for folder, kv, other in ((wide, "int8", "float32"), (narrow, "float32", "int8")):
        refused = call("run", folder, "Hi", "--kv", kv)
        assert refused.code == 2
        assert refused.err == f"error: {folder}: its cache is {other}; export it again with --kv {kv}\n"
    unknown = call("run", "tiny", "Hi", "--kv", "int3")
    assert unknown.err == "error: --kv int3: a cache of 'int3' is not known; known: float32, int8\n"


def test_a_cache_that_is_asked_for_is_exported_at_first_use(call: Call, library: Library) -> None:
    write_model(library.checkpoint_folder("owner/tiny"))
    first = call("run", "owner/tiny:fp32", "Hi", "--kv", "int8", "--raw", "--max-tokens", "3")
    assert first.err.startswith("owner/tiny:fp32-kv-int8: first use, so it is prepared once")
    artifact = library.artifact("owner/tiny:fp32-kv-int8")
    assert artifact is not None
    assert read_manifest(artifact).name == "owner/tiny"  # not what its file or folder says


def test_a_pulled_model_is_exported_by_its_name(call: Call, library: Library) -> None:
    write_model(library.checkpoint_folder("owner/tiny"))
    assert call("export", "owner/tiny", "--recipe", "fp32").code == 0
    folder = library.artifact_folder("owner/tiny", "fp32")
    assert library.artifact("owner/tiny:fp32") == folder
    assert read_manifest(folder).name == "owner/tiny"


def test_a_pulled_model_is_exported_on_first_use_and_found_the_second_time(
    call: Call, library: Library
) -> None:
    write_model(library.checkpoint_folder("owner/tiny"))
    words = ("run", "owner/tiny:fp32", "Hi", "--raw", "--max-tokens", "2")
    first, second = call(*words), call(*words)
    assert first.err.startswith("owner/tiny:fp32: first use, so it is prepared once")
    assert "writing owner/tiny as fp32" in first.err
    assert second.err.startswith("2 prompt tokens")
    assert first.out == second.out


def test_an_unknown_recipe_leaves_nothing(call: Call, model: Path, library: Library) -> None:
    result = call("export", str(model), "--recipe", "int5")
    assert result.code == 2
    assert "int5" in result.err
    assert library.entries() == []


def test_without_the_exporters_packages_the_extra_is_named(
    call: Call, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("sardonyx.export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    result = call("export", str(model))
    assert result.code == 2
    assert result.err.endswith("run: pip install 'sardonyx[export]'\n")


def test_a_checkpoint_is_no_artifact(model: Path) -> None:
    with pytest.raises(ArtifactError, match="not an artifact; make one of it with: sardonyx export"):
        first_use.ready_artifact(str(model))
    with pytest.raises(ArtifactError, match="not an artifact"):
        first_use.ready_artifact(str(model / "model.safetensors"))


def test_an_unknown_model_is_met_with_the_nearest() -> None:
    with pytest.raises(ArtifactError, match="did you mean smollm2-135m"):
        first_use.ready_artifact("smolm2-135m")


def test_inspecting_a_checkpoint(call: Call, model: Path) -> None:
    lines = dict(line.split(maxsplit=1) for line in call("inspect", str(model)).out.splitlines() if line)
    assert lines["format"] == "safetensors"
    assert lines["hidden_size"] == str(EXAMPLE["hidden_size"])
    facts = json.loads(call("inspect", str(model), "--json").out)
    assert facts["path"] == str(model)
    (kind,) = facts["types"]
    assert facts["types"][kind]["parameters"] == facts["parameters"]
    assert facts["files"] == {"model.safetensors": (model / "model.safetensors").stat().st_size}


def test_inspecting_an_artifact_of_the_library(call: Call, model: Path, library: Library) -> None:
    call("export", str(model), "--recipe", "fp32")
    lines = dict(line.split(maxsplit=1) for line in call("inspect", "tiny:fp32").out.splitlines() if line)
    facts = json.loads(call("inspect", "tiny-fp32", "--json").out)
    assert lines["recipe"] == "fp32 for cpu"
    assert lines["parameters"] == f"{facts['parameters']:,}"
    assert lines["cache"].startswith(f"{facts['cache_bytes_per_token']:,} bytes per token")
    assert lines["model.onnx"].endswith("kB")
    assert facts["path"] == str(library.artifact_folder("tiny", "fp32"))


def test_inspecting_a_pulled_checkpoint_by_name(call: Call, library: Library) -> None:
    folder = write_model(library.checkpoint_folder("owner/tiny"))
    assert json.loads(call("inspect", "owner/tiny", "--json").out)["path"] == str(folder)


def test_an_artifact_without_its_description_is_said(call: Call, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call("export", str(model), "-o", str(out))
    (out / "sardonyx.json").unlink()
    for command in (("inspect", str(out)), ("run", str(out), "Hello")):
        result = call(*command)
        assert result.code == 2
        assert "sardonyx.json: missing" in result.err


def test_a_layout_wants_a_place(call: Call, tmp_path: Path) -> None:
    """The library is for artifacts."""
    source = write_model(tmp_path / "source")
    result = call("export", str(source), "--layout", "genai")
    assert (result.code, result.err) == (
        2,
        "error: --layout genai is for another program: say where it looks, with --out DIR\n",
    )
    result = call("export", str(source), "--layout", "genai", "--no-verify", "-o", str(tmp_path / "out"))
    assert result.code == 0, result.err
    assert (tmp_path / "out" / "genai_config.json").is_file()


def test_a_budget_makes_a_recipe_and_says_why(call: Call, model: Path, tmp_path: Path) -> None:
    result = call("export", str(model), "-o", str(tmp_path / "out"), "--max-kl", "0.01")
    assert result.code == 0, result.err
    assert "exported" in result.err
    assert " as budget (" in result.err
    assert "KL IF IN 4 BITS" in result.err
    shown = call("inspect", str(tmp_path / "out")).out
    assert "layers.self_attn.v_proj" in shown
    assert "KL IF IN 4 BITS" in shown


def test_budgets_that_cannot_be_are_refused(call: Call, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, code, message in (
        (("--max-kl", "1e-9"), 1, "best found: "),
        (("--max-bytes", "10"), 2, "10 bytes cannot be met"),
        (("--max-kl", "0.1", "--max-bytes", "10"), 2, "give one of"),
        (("--max-kl", "0.1", "--recipe", "q8"), 2, "exclude each other"),
        (("--max-kl", "0.1", "--no-verify"), 2, "without --no-verify"),
    ):
        result = call("export", str(model), "-o", str(out), *arguments)
        assert result.code == code, result.err
        assert message in result.err
        assert not out.exists()


@pytest.mark.parametrize(
    ("target", "recipe", "dtype", "least"),
    [
        ("webgpu", "fp16", "float16", 1e-9),
        ("cuda", "fp16", "float16", 1e-9),
        ("portable", "fp32", "float32", 0),
    ],
)
def test_a_target_is_certified_against_float32(
    target: str, recipe: str, dtype: str, least: float, call: Call, model: Path, library: Library
) -> None:
    """What halves cost is measured; a prompt for the CPU goes through them, too."""
    result = call("export", str(model), "--recipe", recipe, "--target", target)
    assert result.code == 0, result.err
    (entry,) = library.entries()
    assert entry.name == f"tiny-{recipe}-{target}"
    artifact = library.artifact(entry.name)
    assert artifact is not None
    manifest = read_manifest(artifact)
    assert (manifest.target, manifest.states[0].dtype) == (target, dtype)
    certificate = stored_certificate(artifact)
    assert certificate is not None
    assert least <= certificate.overall.kl_mean < 1e-4
    assert certificate.greedy, "nothing was measured against"
    assert call("verify", str(artifact)).code == 0
    assert call("run", str(artifact), "Hi", "--raw", "--max-tokens", "3").code == 0
