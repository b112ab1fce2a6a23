"""Writing an artifact folder so that it is either whole or not there.

Everything goes into a hidden sibling folder, the manifest last, and one rename makes it the artifact.
Whatever is interrupted before that leaves a folder without a manifest, which nothing loads.
"""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sardonyx.runtime.errors import OutputError
from sardonyx.runtime.integrity import file_record
from sardonyx.runtime.manifest import MANIFEST_NAME


@contextmanager
def writing(out: Path, *, force: bool) -> Iterator[Path]:
    """A folder to write into, which becomes `out` if the block ends well and vanishes if it does not.

    Raises OutputError when `out` exists without `force` or is something else than an artifact, and for any
    failure to write (no permission, disk full).
    """
    _refuse_occupied(out, force=force)
    partial: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
        partial.chmod(0o777 & ~_umask())
        yield partial
        _replace(partial, out)
    except OSError as error:
        raise _output_error(error, out) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def sources_hash(paths: tuple[Path, ...]) -> str:
    """One SHA-256 over several files in their order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(file_record(path).sha256.encode())
    return digest.hexdigest()


def _refuse_occupied(out: Path, *, force: bool) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if out.is_dir() and not any(out.iterdir()):
        return
    if not force:
        raise OutputError(f"{out} exists already; choose another folder or give --force to replace it")
    if not (out / MANIFEST_NAME).is_file():
        raise OutputError(f"{out} is not an artifact, so --force does not replace it; remove it yourself")


def _replace(partial: Path, out: Path) -> None:
    """Put the finished folder in place; an artifact that was there is out of the way for an instant only."""
    if not out.exists():
        partial.rename(out)
        return
    previous = partial.with_name(f"{partial.name}.previous")
    out.rename(previous)
    try:
        partial.rename(out)
    except OSError:
        previous.rename(out)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _output_error(error: OSError, out: Path) -> OutputError:
    cures = {
        errno.ENOSPC: "the disk is full; free some space or choose another place with -o",
        errno.EACCES: "no permission to write there; choose another place with -o",
        errno.EROFS: "the file system is read-only; choose another place with -o",
        errno.ENOTDIR: "a part of the path is a file; choose another place with -o",
    }
    return OutputError(f"{out}: {cures.get(error.errno or 0, error.strerror or str(error))}")
