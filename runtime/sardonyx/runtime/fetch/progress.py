"""How far a download is, read off the folder that it fills.

That way nothing is asked of pip or the hub client, whose own reports differ from version to version.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from sardonyx.runtime.library import stored_bytes

Progress = Callable[[int, int, str], None]
"""Told bytes done, bytes in all, and what is being done."""

INTERVAL_S = 0.1


@contextmanager
def watched(folder: Path, total: int, what: str, progress: Progress) -> Iterator[None]:
    """Report the growth of `folder` towards `total` bytes while the block runs, and its end."""
    ended = Event()

    def watch() -> None:
        while not ended.wait(INTERVAL_S):
            with suppress(OSError):  # what is being counted may be moved or removed just now
                progress(min(stored_bytes(folder), total), total, what)

    progress(0, total, what)
    watcher = Thread(target=watch, name="download progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    progress(total, total, what)
