"""Model: rows of new tokens in, logits out, in as few forward passes as give the same numbers.

It knows the cache and the backend. It does not know what the tokens are for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from sardonyx.runtime.backends.base import Batch, Float32, Output, Program
from sardonyx.runtime.cache import Arena, Row
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.manifest import Manifest
from sardonyx.runtime.prefixes import NO_REUSE, PrefixCache, Reuse

BATCHED_TOKENS = 16
"""Rows of at most so many new tokens share a pass; longer ones fill the machine by themselves."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a model may take besides its weights: for the `cache` of texts that are worked on, as many
    as they need if that is None, and to `reuse` beginnings of texts that may come again.
    """

    cache: int | None = None
    reuse: Reuse = NO_REUSE


NO_MEMORY = Memory()


@dataclass(frozen=True)
class Step:
    """Tokens for one row, one at least, and of how many of the last the outputs are wanted.

    The first `again` of them are cached already, and are computed once more.
    """

    row: Row
    tokens: Sequence[int]
    wanted: int = 1
    again: int = 0


class Model:
    """A program with its cache, and what is kept for later of it."""

    def __init__(self, manifest: Manifest, program: Program, memory: Memory = NO_MEMORY) -> None:
        """Raises RequestError if `memory` is too little for a single text."""
        self.program = program
        self.arena = Arena(manifest.states, manifest.context_length + BATCHED_TOKENS, memory.cache)
        self.prefixes = PrefixCache(self.arena, memory.reuse if self.arena.holds_all else NO_REUSE)
        self.context_length = manifest.context_length
        """Positions that a text may have."""
        if self.arena.most is not None:
            self.context_length = min(
                self.context_length, self.arena.most - self.arena.overhead - BATCHED_TOKENS
            )
        if self.arena.most is not None and self.context_length < BATCHED_TOKENS:
            raise RequestError(
                f"a cache of {memory.cache} bytes is too little for any text: each of its positions takes "
                f"{self.arena.bytes_per_position}"
            )
        self.vocab_size = manifest.vocab_size
        self.hidden_size = manifest.hidden_size
        self.memory = memory
        self._manifest = manifest
        self._running = Lock()

    def twin(self) -> "Model":
        """The same program with another cache, of the same size. Twins may be used by different threads."""
        twin = Model(self._manifest, self.program, self.memory)
        twin._running = self._running
        return twin

    def check_room(self, length: int, tokens: int) -> None:
        """Raises RequestError when so many new tokens do not fit behind the `length` positions of a row."""
        if length + tokens > self.context_length:
            raise RequestError(f"{length} positions and {tokens} more: the model holds {self.context_length}")

    def room_for(self, ids: Sequence[int], outgrows: bool) -> int:
        """Positions for a text that begins with these tokens. Raises RequestError unless they fit."""
        if not ids:
            raise RequestError("the prompt is empty; give it at least one token")
        if len(ids) >= self.context_length and not outgrows:
            whole = self.context_length == self._manifest.context_length
            holder = "the model" if whole else f"a cache of {self.memory.cache} bytes"
            raise RequestError(
                f"the prompt has {len(ids)} tokens, but {holder} holds {self.context_length} "
                "positions, prompt and answer together; shorten the prompt"
            )
        return self.context_length

    def check_fits(self, rows: int, positions: int) -> None:
        """Raises RequestError when so many rows of so many positions are more than the cache may hold."""
        most = self.arena.most
        if most is not None and rows * positions > most:
            raise RequestError(
                f"{rows} rows of {positions} positions: the cache is limited to {self.memory.cache} bytes, "
                f"which are {most} positions; allow it more, or ask for less"
            )

    def forward(self, steps: Sequence[Step]) -> list[Float32]:
        """Logits `[wanted, vocab]` of each step. See `outputs`."""
        return [output.logits for output in self.outputs(steps)]

    def outputs(self, steps: Sequence[Step]) -> list[Output]:
        """The outputs of each step's wanted positions, in order; the rows' caches grow by the new tokens.

        A row's numbers do not depend on which other rows are stepped with it: single tokens and short runs of
        tokens take different kernels, so they are never mixed in a pass. Raises RequestError above the
        context length. Whatever is raised, an interrupt too, leaves rows as they were, or empty where some
        state cannot be taken back.
        """
        for step in steps:
            self.check_room(step.row.length, len(step.tokens) - step.again)
        before = [(step.row.length, step.row.canonical) for step in steps]
        outputs: dict[int, Output] = {}
        try:
            for step in steps:
                self.arena.trim(step.row, step.row.length - step.again, reserve=0)
            for together in _passes(steps):
                for step, output in zip(together, self._run(together), strict=True):
                    outputs[id(step)] = output
        except BaseException:
            for step, (length, canonical) in zip(steps, before, strict=True):
                self.arena.undo(step.row, length, canonical)
            raise
        return [outputs[id(step)] for step in steps]

    def _run(self, steps: Sequence[Step]) -> list[Output]:
        start = min(step.row.index for step in steps)
        stop = max(step.row.index for step in steps) + 1
        width = max(len(step.tokens) for step in steps)
        past = self.arena.lengths(start, stop)
        self.arena.reserve(max(past) + width)  # padding needs room too
        ids = np.zeros((stop - start, width), np.int64)
        # A row in between that is not stepped gets no token; the kernel refuses a row of no positions at all,
        # so an empty one gets a token that its first real one overwrites.
        counts = [0 if length else 1 for length in past]
        wanted: list[int] = []
        for step in steps:
            row, count = step.row.index - start, len(step.tokens)
            ids[row, :count] = step.tokens
            counts[row] = count
            end = row * width + count
            wanted += range(end - step.wanted, end)
        lengths = [length + count for length, count in zip(past, counts, strict=True)]
        batch = Batch(
            ids,
            np.array(counts, np.int32),
            np.array(lengths, np.int32),
            np.array(wanted, np.int64),
            np.array(self.arena.adapters(start, stop), np.int64),
        )
        with self._running:
            logits, hidden = self.program.run(batch, self.arena.view(start, stop))
        results = []
        for step in steps:
            step.row.extend(len(step.tokens), canonical=len(step.tokens) > 1)
            results.append(Output(logits[: step.wanted], hidden[: step.wanted]))
            logits, hidden = logits[step.wanted :], hidden[step.wanted :]
        return results


def _passes(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Steps that may run together: all single tokens, all short runs, and each long run alone."""
    single = [step for step in steps if len(step.tokens) == 1]
    short = [step for step in steps if 1 < len(step.tokens) <= BATCHED_TOKENS]
    if single:
        yield single
    if short:
        yield short
    for step in steps:
        if len(step.tokens) > BATCHED_TOKENS:
            yield [step]
