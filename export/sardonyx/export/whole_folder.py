"""A folder that appears whole or not at all, whenever its process dies. Knows nothing of what is in it.

It is filled under the hidden name `.NAME.partial` beside its place, and renamed when it is complete and on
disk. Where another is to be replaced, Linux exchanges the two in one step: the place holds the old or the
new, never neither. The hidden folder is locked while it is filled, and the lock dies with the process: what a
kill left behind is so told from what somebody is filling, and the next one to fill the same place takes it
over.

Where two folders cannot be exchanged (other systems, some network file systems) the old one steps aside to
`.NAME.previous`. A kill at that very instant leaves the place empty until the next filling moves it back.
"""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sardonyx.runtime.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: two that fill the same place at once are not noticed there
    fcntl = None  # type: ignore[assignment]

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2(2)


@contextmanager
def filling(place: Path) -> Iterator[Path]:
    """An empty folder that takes the place if the block ends well, and vanishes if it does not.

    What is at the place is replaced. Raises OutputError when somebody else is filling it, and OSError.
    """
    partial = _hidden(place, "partial")
    with _parents(place), _held(partial):
        mine = partial.stat()
        try:
            _restore(place)
            _empty(partial)
            yield partial
            _to_disk(partial)
            if place.exists():
                _replace(partial, place)
            else:
                partial.rename(place)
        finally:
            if _is(partial, mine):
                _remove(partial)


@contextmanager
def _parents(place: Path) -> Iterator[None]:
    """Make the folders above that are missing; remove them again if nothing came into them."""
    missing = [parent for parent in place.parents if not parent.exists()]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with suppress(OSError):
            for parent in missing:
                parent.rmdir()


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder, made if it is missing, for this process alone."""
    if fcntl is None:
        folder.mkdir(exist_ok=True)
        yield
        return
    while True:
        folder.mkdir(exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        _lock(folder, handle)
        if _is(folder, os.fstat(handle)):
            break
        os.close(handle)  # the one that was held until now has moved to its place
    try:
        yield
    finally:
        os.close(handle)


def _lock(folder: Path, handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise OutputError(f"{folder}: another export is writing there; wait until it is done") from None


def _replace(partial: Path, place: Path) -> None:
    with _held(place):  # under its new name too, lest it be taken over while it is being removed
        if _exchange(partial, place):
            _remove(partial)
            return
        previous = _hidden(place, "previous")
        place.rename(previous)
        try:
            partial.rename(place)
        except OSError:
            previous.rename(place)
            raise
        _remove(previous)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange the names of two folders in one step. False, with nothing done, where that cannot be."""
    with suppress(AttributeError, OSError):
        rename = ctypes.CDLL(None).renameat2
        return bool(rename(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0)
    return False


def _restore(place: Path) -> None:
    """Undo what a kill between two renames left."""
    previous = _hidden(place, "previous")
    if not previous.exists():
        return
    if place.exists():
        _remove(previous)
    else:
        previous.rename(place)


def _to_disk(folder: Path) -> None:
    """Wait until what is in it would survive a loss of power. Its new name then never stands for less."""
    for path in (*folder.rglob("*"), folder):
        with suppress(PermissionError):  # Windows opens no folders
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _hidden(place: Path, what: str) -> Path:
    return place.parent / f".{place.name}.{what}"


def _is(path: Path, status: os.stat_result) -> bool:
    """Whether this is the name of that folder."""
    return path.exists() and os.path.samestat(path.stat(), status)
