"""Whether an artifact's files are the ones it was made of. Knows bytes and hashes, not what is in them.

The manifest holds the hash of every file. The certificate holds the digest of the manifest (its own entry
left out) and of itself: either of them changed alone is noticed. It is a guard against accidents and careless
edits, not a signature.
"""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.manifest import (
    CERTIFICATE_NAME,
    CERTIFICATES,
    CHAT_TEMPLATE_NAME,
    MANIFEST_NAME,
    MODEL_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    FileRecord,
    Manifest,
)

PARTS = (MODEL_NAME, WEIGHTS_NAME, TOKENIZER_NAME, CHAT_TEMPLATE_NAME)
"""Files that are read when an artifact is loaded."""


def file_record(path: Path) -> FileRecord:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileRecord(bytes=file.tell(), sha256=digest.hexdigest())


@contextmanager
def checking(folder: Path, manifest: Manifest) -> Iterator[None]:
    """Hold the files against the manifest while the block runs, so that hashing costs no time of its own.

    Sizes are checked before the block: what maps a file that was cut short dies of it. A wrong hash is raised
    at the end, before any error of the block itself, since it explains that. Raises ArtifactError naming the
    file.
    """
    check_certificate(folder, manifest)
    check_sizes(folder, manifest)
    with ThreadPoolExecutor(1) as pool:
        hashes = pool.submit(check_hashes, folder, manifest)
        try:
            yield
        finally:
            hashes.result()


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Raises ArtifactError when a file is missing or of another size than it was written with, or was not
    written with the others.
    """
    for name in PARTS:
        if name not in manifest.files and (folder / name).exists():
            raise ArtifactError(f"{folder / name}: not part of this artifact as it was written; remove it")
    for name, record in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{path}: missing; export the model again")
        size = path.stat().st_size
        if size != record.bytes:
            raise ArtifactError(f"{path}: {size} bytes, {record.bytes} were written; export the model again")


def check_hashes(folder: Path, manifest: Manifest) -> None:
    """Raises ArtifactError when a file's content is not what was written."""
    for name, record in manifest.files.items():
        try:
            found = file_record(folder / name)
        except OSError as error:
            raise ArtifactError(f"{folder / name}: cannot be read ({error.strerror})") from None
        if found != record:
            raise ArtifactError(f"{folder / name}: altered since it was written; export the model again")


def check_certificate(folder: Path, manifest: Manifest) -> None:
    """Raises ArtifactError when there is a certificate that is not, or no longer, of this artifact."""
    path = folder / CERTIFICATE_NAME
    if not path.is_file():
        return  # an artifact need not have one; a lost one is missing from the files
    if CERTIFICATE_NAME not in manifest.files:
        raise ArtifactError(f"{path}: not of this artifact, whose manifest lists no certificate; remove it")
    certificate = _document(path)
    if certificate.get("digest") != digest(certificate, but="digest"):
        raise ArtifactError(f"{path}: edited since it was measured; export the model again")
    if certificate.get("manifest_sha256") != manifest_digest(folder):
        raise ArtifactError(
            f"{folder / MANIFEST_NAME}: altered since it was certified; export the model again"
        )


def manifest_digest(folder: Path) -> str:
    """The digest of an artifact's manifest without its entry for the certificate."""
    manifest = _document(folder / MANIFEST_NAME)
    files = manifest.get("files", {})
    return digest(
        manifest | {"files": {name: files[name] for name in files if not CERTIFICATES.fullmatch(name)}}
    )


def digest(document: Mapping[str, Any], but: str | None = None) -> str:
    """SHA-256 of a JSON object whatever its order and spacing, one field left out."""
    kept = {key: value for key, value in document.items() if key != but}
    return hashlib.sha256(msgspec.json.encode(kept, order="sorted")).hexdigest()


def _document(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{path}: damaged ({error}); export the model again") from None
