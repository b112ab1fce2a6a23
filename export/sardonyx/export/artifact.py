"""Where an artifact is written: what may be replaced there, and what to say when it cannot be."""

import errno
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sardonyx.export.whole_folder import filling
from sardonyx.runtime.errors import OutputError, SourceError
from sardonyx.runtime.integrity import file_record
from sardonyx.runtime.manifest import MANIFEST_NAME

REASONS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the quota of the disk is used up; free some space",
    errno.EFBIG: "larger files are not allowed here; raise the limit",
    errno.EACCES: "no permission to write there; ask for it",
    errno.EROFS: "the file system is read-only; mount it for writing",
    errno.ENOTDIR: "a part of the path is a file; remove it",
    errno.EEXIST: "a part of the path is a file; remove it",
}


@contextmanager
def writing(out: Path, *, force: bool) -> Iterator[Path]:
    """A folder to write into, which becomes `out` if the block ends well and vanishes if it does not.

    With `force` it takes the place of an artifact. Raises OutputError when `out` exists without `force` or is
    something else than an artifact, and for any failure to write (no permission, disk full); SourceError when
    the block fails to read a file from elsewhere.
    """
    place = out.resolve()
    try:
        with filling(place) as folder:
            _refuse_occupied(place, out, force=force)
            with _reading_elsewhere(folder):
                yield folder
    except OSError as error:
        reason = REASONS.get(error.errno or 0, error.strerror or str(error))
        raise OutputError(f"{out}: {reason}, or choose another place with -o") from error


def failed_place(out: Path, *, force: bool) -> Path:
    """Where an artifact goes that failed its verification. Raises OutputError when that place is taken."""
    failed = out.with_name(f"{out.name}.failed")
    _refuse_occupied(failed.resolve(), failed, force=force)
    return failed


def set_aside(folder: Path, failed: Path) -> None:
    """Move what was written to the place that `failed_place` gave. Raises OSError."""
    if failed.exists():
        shutil.rmtree(failed)
    folder.rename(failed)


def sources_hash(paths: tuple[Path, ...]) -> str:
    """One SHA-256 over several files in their order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(file_record(path).sha256.encode())
    return digest.hexdigest()


def _refuse_occupied(place: Path, out: Path, *, force: bool) -> None:
    if place == Path.cwd():
        raise OutputError(f"{out}: is the folder you are in, which cannot be replaced; give one inside it")
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not force:
        raise OutputError(f"{out} exists already; choose another folder or give --force to replace it")
    if not (place / MANIFEST_NAME).is_file():
        raise OutputError(f"{out} is not an artifact, so --force does not replace it; remove it yourself")


@contextmanager
def _reading_elsewhere(folder: Path) -> Iterator[None]:
    """What is written is in this folder: an error about any other file is about the source."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str) and folder not in Path(error.filename).parents:
            raise SourceError(f"{error.filename}: cannot be read ({error.strerror})") from error
        raise
