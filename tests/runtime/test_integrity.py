"""Files against what was written of them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sardonyx.runtime.backends.scripted import scripted_manifest
from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.integrity import PARTS, checking, digest, file_record, manifest_digest
from sardonyx.runtime.manifest import CERTIFICATE_NAME, FileRecord, Manifest, write_manifest

CONTENTS = {"model.onnx": b"graph", "model.onnx.data": b"weights" * 1000, "tokenizer.json": b"{}"}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Of an artifact in the test's folder."""
    for name, data in CONTENTS.items():
        (tmp_path / name).write_bytes(data)
    files = {name: file_record(tmp_path / name) for name in CONTENTS}
    return msgspec.structs.replace(scripted_manifest(10), files=files)


def refusal(folder: Path, manifest: Manifest) -> str:
    with pytest.raises(ArtifactError) as caught, checking(folder, manifest):
        pass
    return str(caught.value)


def test_a_record_is_size_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"onyx")
    assert file_record(path) == FileRecord(4, hashlib.sha256(b"onyx").hexdigest())


def test_a_sound_artifact_passes(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "README.md").write_text("a file that nobody reads is nobody's business")
    with checking(tmp_path, manifest):
        pass


@pytest.mark.parametrize("name", CONTENTS)
def test_what_is_missing_cut_grown_or_altered_is_named(tmp_path: Path, manifest: Manifest, name: str) -> None:
    path, data = tmp_path / name, CONTENTS[name]
    path.unlink()
    assert refusal(tmp_path, manifest) == f"{path}: missing; export the model again"
    for other in (data[:-1], data + b"!", b""):
        path.write_bytes(other)
        assert f"{path}: {len(other)} bytes, {len(data)} were written" in refusal(tmp_path, manifest)
    path.write_bytes(data[:-1] + b"!")
    assert refusal(tmp_path, manifest) == f"{path}: altered since it was written; export the model again"
    path.unlink()
    path.mkdir()
    assert refusal(tmp_path, manifest) == f"{path}: missing; export the model again"


def test_a_link_to_the_right_bytes_will_do(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "model.onnx.data"
    path.rename(tmp_path / "blob")
    path.symlink_to("blob")
    with checking(tmp_path, manifest):
        pass


@pytest.mark.parametrize("name", PARTS)
def test_what_would_be_read_unwritten_is_named(tmp_path: Path, manifest: Manifest, name: str) -> None:
    (tmp_path / name).write_bytes(b"smuggled in")
    files = {written: record for written, record in manifest.files.items() if written != name}
    assert f"{tmp_path / name}: not part of this artifact" in refusal(
        tmp_path, msgspec.structs.replace(manifest, files=files)
    )


def test_sizes_are_checked_before_anything_is_loaded(tmp_path: Path, manifest: Manifest) -> None:
    """What maps a file that was cut short dies of it."""
    (tmp_path / "model.onnx.data").write_bytes(b"cut")
    reached = []
    with pytest.raises(ArtifactError), checking(tmp_path, manifest):
        reached.append(True)
    assert not reached


def test_a_wrong_hash_explains_an_error_of_the_block(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "model.onnx").write_bytes(b"grape")
    with pytest.raises(ArtifactError, match=r"model\.onnx: altered"), checking(tmp_path, manifest):
        raise RuntimeError("the library did not like the graph")


def test_an_error_of_the_block_comes_through(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(RuntimeError, match="of its own"), checking(tmp_path, manifest):
        raise RuntimeError("of its own")


def test_a_file_that_vanishes_or_cannot_be_read_is_named(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> FileRecord:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("sardonyx.runtime.integrity.file_record", refused)
    assert "model.onnx: cannot be read (Permission denied)" in refusal(tmp_path, manifest)


def certified(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest of an artifact with a certificate, both written."""
    write_manifest(folder, manifest)
    certificate: dict[str, Any] = {"manifest_sha256": manifest_digest(folder), "passed": True}
    certificate["digest"] = digest(certificate)
    (folder / CERTIFICATE_NAME).write_text(json.dumps(certificate))
    files = manifest.files | {CERTIFICATE_NAME: file_record(folder / CERTIFICATE_NAME)}
    manifest = msgspec.structs.replace(manifest, files=files)
    write_manifest(folder, manifest)
    return manifest


def test_a_certificate_and_its_manifest_hold_each_other(tmp_path: Path, manifest: Manifest) -> None:
    manifest = certified(tmp_path, manifest)
    with checking(tmp_path, manifest):
        pass
    write_manifest(tmp_path, msgspec.structs.replace(manifest, vocab_size=11))
    assert "sardonyx.json: altered since it was certified" in refusal(tmp_path, manifest)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"passed": false}', "certificate.json: edited since it was measured"),
        ("nonsense", "certificate.json: damaged"),
        ('{"passed": "\x80"}', "certificate.json: damaged"),
    ],
)
def test_an_edited_certificate_is_named(tmp_path: Path, manifest: Manifest, content: str, fault: str) -> None:
    manifest = certified(tmp_path, manifest)
    (tmp_path / CERTIFICATE_NAME).write_bytes(content.encode("latin-1"))
    assert fault in refusal(tmp_path, manifest)


def test_a_certificate_of_another_artifact_is_named(tmp_path: Path, manifest: Manifest) -> None:
    certified(tmp_path, manifest)
    assert "certificate.json: not of this artifact" in refusal(tmp_path, manifest)
