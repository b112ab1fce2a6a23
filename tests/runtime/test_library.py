"""The library: names to folders and back, leftovers, removal, and folders that appear whole or not at all."""

import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sardonyx.runtime.errors import ArtifactError, OutputError, SourceError
from sardonyx.runtime.library import Library, folder_name
from sardonyx.runtime.manifest import write_manifest
from scripted_llm import scripted_llm_manifest


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "home")


def add_artifact(library: Library, model: str, recipe: str) -> Path:
    import msgspec

    folder = library.artifact_folder(model, recipe)
    folder.mkdir(parents=True)
    write_manifest(folder, msgspec.structs.replace(scripted_llm_manifest(), recipe=recipe))
    return folder


def add_checkpoint(library: Library, model: str, *files: str) -> Path:
    folder = library.checkpoint_folder(model)
    folder.mkdir(parents=True)
    for file in files or ("model.gguf",):
        (folder / file).write_bytes(b"12345")
    return folder


@given(st.text(min_size=1).filter(lambda name: "\ud800" not in name))
def test_any_name_is_one_visible_folder_name(name: str) -> None:
    folder = folder_name(name)
    assert unquote(folder) == name
    assert not folder.startswith(".")
    assert not set(folder) & set('/\\:*?"<>|\0\n')


def test_different_names_never_share_a_folder() -> None:
    names = ["a/b", "a--b", "a%2Fb", "a:b", "a-b", ".a", "a"]
    assert len({folder_name(name) for name in names}) == len(names)


def test_an_empty_library_has_no_entries_and_creates_nothing(library: Library) -> None:
    assert library.entries() == []
    assert not library.root.exists()


def test_entries_name_kind_and_size(library: Library) -> None:
    add_checkpoint(library, "owner/some model 🦜")
    add_artifact(library, "owner/some model 🦜", "int4")
    (artifact, checkpoint) = library.entries()
    assert (artifact.kind, artifact.name) == ("artifact", "owner/some model 🦜-int4")
    assert (checkpoint.kind, checkpoint.name, checkpoint.bytes) == ("checkpoint", "owner/some model 🦜", 5)


def test_what_a_killed_command_left_is_shown_as_unfinished_and_can_be_removed(library: Library) -> None:
    add_checkpoint(library, "whole")
    (library.checkpoints / ".smollm2-135m.x1y2").mkdir()
    (library.artifacts / "no-manifest").mkdir(parents=True)
    unfinished = [entry.name for entry in library.entries() if entry.kind == "unfinished"]
    assert unfinished == [".smollm2-135m.x1y2", "no-manifest"]
    for name in unfinished:
        library.remove(library.find(name))
    assert [entry.name for entry in library.entries()] == ["whole"]


@pytest.mark.parametrize("name", ["m-int8", "m:int8"])
def test_an_artifact_is_found_by_name_and_by_model_and_recipe(library: Library, name: str) -> None:
    folder = add_artifact(library, "m", "int8")
    add_artifact(library, "m", "int4")
    assert library.artifact(name) == folder
    assert library.find(name).path == folder


def test_a_model_alone_means_its_default_recipe(library: Library) -> None:
    add_artifact(library, "m", "fp32")
    folder = add_artifact(library, "m", "int4")
    assert library.artifact("m") == folder


def test_a_model_alone_means_its_only_artifact_but_not_that_of_a_longer_name(library: Library) -> None:
    add_artifact(library, "m-large", "fp32")
    assert library.artifact("m") is None
    folder = add_artifact(library, "m", "fp32")
    assert library.artifact("m") == folder


def test_which_of_several_artifacts_is_asked(library: Library) -> None:
    add_artifact(library, "m", "fp32")
    add_artifact(library, "m", "int8")
    with pytest.raises(ArtifactError, match="which one\\? m-fp32, m-int8"):
        library.artifact("m")


def test_a_damaged_artifact_hides_no_other(library: Library) -> None:
    (add_artifact(library, "broken", "fp32") / "sardonyx.json").write_text("{")
    assert library.artifact("m") is None
    assert [entry.name for entry in library.entries()] == ["broken-fp32"]


def test_an_artifact_is_found_by_path(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = add_artifact(library, "m", "int4")
    monkeypatch.chdir(folder.parent)
    assert library.artifact("m-int4") == Path("m-int4")
    assert library.artifact(str(folder)) == folder


def test_a_checkpoint_is_its_only_file_or_its_folder(library: Library) -> None:
    single = add_checkpoint(library, "single")
    many = add_checkpoint(library, "many", "config.json", "model.safetensors")
    assert library.checkpoint("single") == single / "model.gguf"
    assert library.checkpoint("many") == library.source("many") == many
    assert library.checkpoint("none") is None


def test_a_source_is_a_path_before_a_name(library: Library, tmp_path: Path) -> None:
    assert library.source(str(tmp_path)) == tmp_path
    add_checkpoint(library, "smollm2-135m")
    with pytest.raises(SourceError, match="did you mean smollm2-135m"):
        library.source("smolm2-135m")


def test_finding_needs_the_exact_name_and_suggests_the_nearest(library: Library) -> None:
    add_checkpoint(library, "smollm2-135m")
    with pytest.raises(ArtifactError, match="did you mean smollm2-135m"):
        library.find("smollm2-135")
    with pytest.raises(ArtifactError, match="sardonyx list"):
        library.find("quite different")


def test_a_name_of_both_kinds_must_say_which(library: Library) -> None:
    add_checkpoint(library, "m-int4")
    folder = add_artifact(library, "m", "int4")
    with pytest.raises(ArtifactError, match="artifacts/m-int4 or checkpoints/m-int4"):
        library.find("m-int4")
    assert library.find("artifacts/m-int4").path == folder


def test_removal_leaves_nothing(library: Library) -> None:
    add_artifact(library, "m", "int4")
    library.remove(library.find("m-int4"))
    assert list(library.artifacts.iterdir()) == []


def test_what_cannot_be_removed_is_said(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = library.find(add_artifact(library, "m", "int4").name)

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match=r"m-int4: cannot be removed \(Permission denied\)"):
        library.remove(entry)


def test_staging_gives_the_name_at_the_end(library: Library) -> None:
    folder = library.checkpoint_folder("m")
    with library.staging(folder) as temporary:
        (temporary / "model.gguf").write_bytes(b"1")
        assert not folder.exists()
        assert [entry.kind for entry in library.entries()] == ["unfinished"]
    assert [path.name for path in library.checkpoints.iterdir()] == ["m"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_staging_leaves_nothing_after_a_failure(library: Library, failure: type[BaseException]) -> None:
    def fail() -> None:
        with library.staging(library.checkpoint_folder("m")) as temporary:
            (temporary / "model.gguf").write_bytes(b"1")
            raise failure

    with pytest.raises(failure):
        fail()
    assert list(library.checkpoints.iterdir()) == []


def test_a_full_disk_is_an_output_error(library: Library) -> None:
    def fail() -> None:
        with library.staging(library.checkpoint_folder("m")):
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        fail()
    assert list(library.checkpoints.iterdir()) == []


def test_of_two_that_stage_the_same_the_first_stays(library: Library) -> None:
    folder = library.checkpoint_folder("m")
    with library.staging(folder) as second:
        (second / "model.gguf").write_bytes(b"second")
        with library.staging(folder) as first:
            (first / "model.gguf").write_bytes(b"first")
    assert (folder / "model.gguf").read_bytes() == b"first"
    assert len(list(library.checkpoints.iterdir())) == 1


def test_a_root_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    library = Library(tmp_path / "file")
    with pytest.raises(OutputError, match="SARDONYX_HOME"), library.staging(library.checkpoint_folder("m")):
        raise AssertionError("never entered")


def test_where_the_library_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARDONYX_HOME", str(tmp_path / "mine"))
    assert Library.of_user().root == tmp_path / "mine"
    monkeypatch.delenv("SARDONYX_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert Library.of_user().root == tmp_path / "cache" / "sardonyx"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    for platform, place in [("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "local")]:
        monkeypatch.setattr(sys, "platform", platform)
        assert Library.of_user().root == tmp_path / place / "sardonyx"
