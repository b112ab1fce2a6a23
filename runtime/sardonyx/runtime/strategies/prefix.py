"""Decodings for a prefix that is kept in a file: the engine looks after them as after any."""

from collections.abc import Sequence
from typing import Any

from sardonyx.runtime.prefixes import PrefixCache, States
from sardonyx.runtime.saved_prefix import SavedPrefix
from sardonyx.runtime.strategies import Decoding, Feed


def computed(prefixes: PrefixCache, tokens: Sequence[int]) -> Decoding[States]:
    """The states of a prefix."""
    yield Feed([tokens], wanted=0)
    return prefixes.states(tokens)


def pinned(prefixes: PrefixCache, prefix: SavedPrefix) -> Decoding[Any]:
    """Its prompt, once it is known."""
    yield Feed([])  # what follows is done in a step, when nobody else looks at what is known
    prefixes.pin(prefix.tokens, prefix.states)
    return prefix.prompt
