"""The prefix cache: beginnings of texts that were computed, kept for the next text that begins alike.

A tree of blocks of tokens: a block holds the states of its positions, its place in the tree says of which
text, so texts that begin alike share memory, and what is found is compared token by token. Blocks leave from
the ends of the texts that were longest not asked for. It knows rows and tokens, and nothing of who asks.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.cache import Arena, Row
from sardonyx.runtime.errors import RequestError

BLOCK = 32
"""Tokens of a block. What is left over of a text is computed anew, together with what follows it."""

Tokens: TypeAlias = tuple[int, ...]
States: TypeAlias = Sequence[NDArray[Any]]
"""Of some positions of a text: for each state of the manifest `[heads, positions, width]`."""


@dataclass(frozen=True)
class Reuse:
    """What may be kept of texts for those that begin alike: so many bytes, of prompts alone or `answers` too.

    Generated tokens were computed one by one, and their numbers differ in the last bits from those of a
    prompt. With `answers` the next turn of a chat computes nothing but what is new in it; without, it
    computes the last answer again, and comes to exactly the logits that it would come to with nothing kept.
    """

    bytes: int = 256 << 20
    answers: bool = False


NO_REUSE = Reuse(0)


@dataclass(eq=False)
class _Block:
    """States of some positions, `[heads, BLOCK, width]` each, and the blocks that followed them."""

    states: States
    parent: dict[Tokens, "_Block"]
    tokens: Tokens
    following: dict[Tokens, "_Block"] = field(default_factory=dict)
    pinned: bool = False
    """It lies in a file: it takes no memory, and stays."""


class PrefixCache:
    """Prefixes of the texts in one arena.

    Kept are positions whose numbers do not depend on how the text was cut (`Row.canonical`), and others only
    if `reuse` says so.
    """

    def __init__(self, arena: Arena, reuse: Reuse) -> None:
        self._reuse = reuse
        self._arena = arena
        self._block_bytes = BLOCK * arena.bytes_per_position
        self._roots: dict[int, dict[Tokens, _Block]] = {}
        """Of each adapter: the same text has other states with another one."""
        self._blocks: OrderedDict[_Block, None] = OrderedDict()
        """Those that take memory, the longest unused first. Whoever uses a block uses those before it too, a
        little later: so the first is always an end.
        """

    @property
    def nbytes(self) -> int:
        """Bytes of memory that are kept."""
        return len(self._blocks) * self._block_bytes

    def extend(self, row: Row, text: Sequence[int], tokens: Sequence[int], spare: int) -> int:
        """Append to a row that holds `text` what is known of the `tokens` that follow, all but the last
        `spare` at most. Returns how many that are.
        """
        known = len(text)
        if known + len(tokens) - spare < BLOCK or len(tokens) <= spare:
            return 0
        path = list(self._path([*text, *tokens[: len(tokens) - spare]], row.adapter))
        self._touch(path)
        count = BLOCK * len(path) - known
        if count <= 0:
            return 0
        first, skipped = divmod(known, BLOCK)
        parts = [block.states for block in path[first:]]
        parts[0] = [state[:, skipped:] for state in parts[0]]
        self._arena.append(row, parts)
        return count

    def store(self, row: Row, text: Sequence[int]) -> None:
        """Keep a copy of what a row holds of `text`, which it begins with, as far as the memory goes."""
        sure = row.length if self._reuse.answers else row.canonical
        path = list(self._path(text[:sure], row.adapter))
        self._touch(path)
        room = self._reuse.bytes // self._block_bytes - sum(not block.pinned for block in path)
        known = BLOCK * len(path)
        for start in range(known, min(sure, known + BLOCK * room) - BLOCK + 1, BLOCK):
            self.shrink(self._reuse.bytes - self._block_bytes)
            siblings = path[-1].following if path else self._roots[row.adapter]
            tokens = tuple(text[start : start + BLOCK])
            block = _Block(self._arena.read(row, start, start + BLOCK), siblings, tokens)
            siblings[tokens] = block
            self._blocks[block] = None
            path.append(block)
        self._touch(path)

    def whole(self, text: Sequence[int]) -> Sequence[int]:
        """What of a text can be known: its whole blocks. Raises RequestError where that is nothing."""
        if not self._arena.holds_all:
            raise RequestError("this model remembers the last positions only: no prefix of it can be kept")
        if len(text) < BLOCK:
            raise RequestError(f"{len(text)} tokens are too few to be kept: {BLOCK} are one block")
        return text[: len(text) // BLOCK * BLOCK]

    def states(self, text: Sequence[int]) -> States:
        """Of each state `[heads, positions, width]` of a text that is known without an adapter, else raises
        RequestError.
        """
        path = list(self._path(text, 0))
        if BLOCK * len(path) < len(text):
            raise RequestError(f"{len(text)} tokens are more than is kept for reuse; raise Reuse.bytes")
        self._touch(path)
        return [np.concatenate(states, axis=1) for states in zip(*(b.states for b in path), strict=True)]

    def pin(self, text: Sequence[int], states: States) -> None:
        """Know a text from now on, whole blocks and without an adapter, by states that lie elsewhere: in a
        file.
        """
        siblings = self._roots.setdefault(0, {})
        for start in range(0, len(text) - BLOCK + 1, BLOCK):
            tokens = tuple(text[start : start + BLOCK])
            block = siblings.setdefault(tokens, _Block((), siblings, tokens))
            block.states = [state[:, start : start + BLOCK] for state in states]
            block.pinned = True
            self._blocks.pop(block, None)
            siblings = block.following

    def shrink(self, nbytes: int) -> None:
        """Let go of what was longest not asked for, until no more than `nbytes` are kept."""
        while self.nbytes > nbytes:
            block, _ = self._blocks.popitem(last=False)
            del block.parent[block.tokens]

    def _path(self, text: Sequence[int], adapter: int) -> Iterator[_Block]:
        """The blocks that a text begins with."""
        following = self._roots.setdefault(adapter, {})
        for start in range(0, len(text) - BLOCK + 1, BLOCK):
            block = following.get(tuple(text[start : start + BLOCK]))
            if block is None:
                return
            yield block
            following = block.following

    def _touch(self, path: Sequence[_Block]) -> None:
        for block in reversed(path):
            if not block.pinned:
                self._blocks.move_to_end(block)
