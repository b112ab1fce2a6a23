"""Model: new tokens in, logits out. Ragged steps become as few forward passes as give the same numbers.

It knows the cache and the backend. It does not know what the tokens are for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from sardonyx.runtime.backends.base import Batch, Float32, Program
from sardonyx.runtime.cache import Arena, Row
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.manifest import Manifest

BATCHED_TOKENS = 16
"""Rows of at most so many new tokens share a pass; longer ones fill the machine by themselves."""


@dataclass(frozen=True)
class Step:
    """New tokens for one row, and how many of the last positions' logits are wanted."""

    row: Row
    tokens: Sequence[int]
    wanted: int = 1


class Model:
    """A program with its cache."""

    def __init__(self, manifest: Manifest, program: Program) -> None:
        self.program = program
        self.arena = Arena(manifest.states, manifest.context_length + BATCHED_TOKENS)
        self.context_length = manifest.context_length

    def forward(self, steps: Sequence[Step]) -> list[Float32]:
        """Logits `[wanted, vocab]` of each step, in order; the rows' caches grow by their tokens.

        A row's numbers do not depend on which other rows are stepped with it: single tokens and short runs of
        tokens take different kernels, so they are never mixed in a pass. Raises RequestError above the
        context length.
        """
        for step in steps:
            if step.row.length + len(step.tokens) > self.context_length:
                raise RequestError(
                    f"{step.row.length} + {len(step.tokens)} positions, the model holds {self.context_length}"
                )
        logits: dict[int, Float32] = {}
        for together in _passes(steps):
            for step, rows in zip(together, self._run(together), strict=True):
                logits[id(step)] = rows
        return [logits[id(step)] for step in steps]

    def _run(self, steps: Sequence[Step]) -> Iterator[Float32]:
        start = min(step.row.index for step in steps)
        stop = max(step.row.index for step in steps) + 1
        width = max(len(step.tokens) for step in steps)
        ids = np.zeros((stop - start, width), np.int64)
        past = np.array(self.arena.lengths(start, stop), np.int32)
        self.arena.reserve(int(past.max()) + width)  # padding needs room too
        # A row in between that is not stepped gets no token; the kernel refuses a row of no positions at all,
        # so an empty one gets a token that its first real one overwrites.
        counts = (past == 0).astype(np.int32)
        wanted: list[int] = []
        for step in steps:
            at = step.row.index - start
            ids[at, : len(step.tokens)] = step.tokens
            counts[at] = len(step.tokens)
            wanted += range(at * width + len(step.tokens) - step.wanted, at * width + len(step.tokens))
        batch = Batch(ids, counts, past + counts, np.array(wanted, np.int64))
        logits = self.program.run(batch, self.arena.view(start, stop))
        for step in steps:
            step.row.length += len(step.tokens)
        offset = 0
        for step in steps:
            yield logits[offset : offset + step.wanted].copy()
            offset += step.wanted


def _passes(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Steps that may run together: all single tokens, all short runs, and each long run alone."""

    def kind(step: Step) -> int:
        return len(step.tokens) if len(step.tokens) > BATCHED_TOKENS else min(len(step.tokens), 2)

    for size, group in groupby(sorted(steps, key=kind), key=kind):
        if size <= BATCHED_TOKENS:
            yield list(group)
        else:
            yield from ([step] for step in group)
