"""Whether an artifact's files are the ones it was made of. Knows bytes and hashes, not what is in them."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.manifest import FileRecord, Manifest


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
    check_sizes(folder, manifest)
    with ThreadPoolExecutor(1) as pool:
        hashes = pool.submit(check_hashes, folder, manifest)
        try:
            yield
        finally:
            hashes.result()


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Raises ArtifactError when a file is missing or of another size than it was written with."""
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
        if file_record(folder / name) != record:
            raise ArtifactError(f"{folder / name}: altered since it was written; export the model again")
