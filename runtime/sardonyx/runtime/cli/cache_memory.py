"""The option of commands that answer: how much memory the cache of the texts at work may take."""

import re
from typing import Annotated, Any

import typer

from sardonyx.runtime.errors import RequestError


def _option(*, shown: bool) -> Any:
    text = "Most memory for texts at work, as in 512MB."
    return typer.Option("--cache-memory", metavar="SIZE", help=text, hidden=not shown)


CacheMemory = Annotated[str | None, _option(shown=True)]
RareCacheMemory = Annotated[str | None, _option(shown=False)]
"""For commands that have a `--help-all`."""

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def bytes_of(size: str | None) -> int | None:
    """Bytes, or None if nothing is said. Raises RequestError for what is no size."""
    if size is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]*)", size.strip().lower(), re.ASCII)
    if not found or found[2] not in UNITS:
        raise RequestError(f"--cache-memory {size}: a size is needed, as in 512MB, 1.5GB or 64MiB")
    return int(float(found[1]) * UNITS[found[2]])
