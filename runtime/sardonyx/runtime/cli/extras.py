"""Packages that only some commands need."""

from collections.abc import Iterator
from contextlib import contextmanager

from sardonyx.runtime.errors import MissingExtra


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports: what is not installed becomes MissingExtra, which says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("sardonyx"):
            raise
        raise MissingExtra(error.name, name) from None
