"""The prefix cache: beginnings of texts that were computed, kept for the next text that begins alike.

A tree of blocks of tokens: a block holds the states of its positions, its place in the tree says of which
text, so texts that begin alike share memory, and what is found is compared token by token. Blocks leave from
the ends of the texts that were longest not asked for. It knows rows and tokens, and nothing of who asks.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

from sardonyx.runtime.cache import Arena, Row

BLOCK = 32
"""Tokens of a block. What is left over of a text is computed anew, together with what follows it."""

Tokens: TypeAlias = tuple[int, ...]


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

    states: Sequence[NDArray[Any]]
    parent: dict[Tokens, "_Block"]
    tokens: Tokens
    following: dict[Tokens, "_Block"] = field(default_factory=dict)


class PrefixCache:
    """Prefixes of the texts in one arena.

    Kept are positions whose numbers do not depend on how the text was cut (`Row.canonical`), and others only
    if `reuse` says so.
    """

    def __init__(self, arena: Arena, reuse: Reuse) -> None:
        self._reuse = reuse
        self._arena = arena
        self._block_bytes = BLOCK * arena.bytes_per_position
        self._roots: dict[Tokens, _Block] = {}
        self._blocks: OrderedDict[_Block, None] = OrderedDict()
        """All of them, the longest unused first. Whoever uses a block uses those before it too, a little
        later: so the first is always an end.
        """

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return len(self._blocks) * self._block_bytes

    def extend(self, row: Row, text: Sequence[int], tokens: Sequence[int], spare: int) -> int:
        """Append to a row that holds `text` what is known of the `tokens` that follow, all but the last
        `spare` at most. Returns how many that are.
        """
        known = len(text)
        if known + len(tokens) - spare < BLOCK or len(tokens) <= spare:
            return 0
        path = list(self._path([*text, *tokens[: len(tokens) - spare]]))
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
        most = self._reuse.bytes // self._block_bytes
        sure = row.length if self._reuse.answers else row.canonical
        text = text[: min(sure, BLOCK * most)]
        path = list(self._path(text))
        self._touch(path)
        for start in range(BLOCK * len(path), len(text) - BLOCK + 1, BLOCK):
            self.shrink((most - 1) * self._block_bytes)
            states = self._arena.read(row, start, start + BLOCK)
            siblings = path[-1].following if path else self._roots
            block = _Block(states, siblings, tuple(text[start : start + BLOCK]))
            siblings[block.tokens] = block
            self._blocks[block] = None
            path.append(block)
        self._touch(path)

    def shrink(self, nbytes: int) -> None:
        """Let go of what was longest not asked for, until no more than `nbytes` are kept."""
        while self.nbytes > nbytes:
            block, _ = self._blocks.popitem(last=False)
            del block.parent[block.tokens]

    def _path(self, text: Sequence[int]) -> Iterator[_Block]:
        """The blocks that a text begins with."""
        following = self._roots
        for start in range(0, len(text) - BLOCK + 1, BLOCK):
            block = following.get(tuple(text[start : start + BLOCK]))
            if block is None:
                return
            yield block
            following = block.following

    def _touch(self, path: Sequence[_Block]) -> None:
        for block in reversed(path):
            self._blocks.move_to_end(block)
