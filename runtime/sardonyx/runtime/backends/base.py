"""What a backend is: a program that turns tokens and cached states into logits, and updates the states.

A backend knows arrays. It does not know requests, strategies or text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """One forward pass over `rows` sequences of up to `tokens` new tokens each, padded on the right."""

    ids: NDArray[np.int64]  # [rows, tokens]
    counts: NDArray[np.int32]  # [rows], new tokens that are not padding
    lengths: NDArray[np.int32]  # [rows], positions cached once this pass is done
    logit_rows: NDArray[np.int64]  # [wanted], indices into the flattened [rows * tokens]
    adapters: NDArray[np.int64]  # [rows], 0 for none; all that a model without adapters is given


def _nothing(changing: bool) -> None:
    """All bytes are at home."""


class ArenaMemory:
    """The bytes of an arena, of which newer ones may be on a device: whoever reads or changes them looks
    first, and whoever has newer ones is told then.
    """

    def __init__(self) -> None:
        self.look: Callable[[bool], None] = _nothing
        """Called with whether bytes are to be changed, not only read."""


@dataclass(frozen=True)
class CacheView:
    """The cache rows that a pass works on, in place.

    `tensors` are contiguous slices of the arena, one for each state of the manifest: `[rows, heads, capacity,
    width]` of keys and values, `[rows, positions, features]` of windows. The same `memory` and the same
    `rows` mean the very same bytes, so a backend may remember what it bound.
    """

    tensors: Sequence[NDArray[Any]]
    memory: ArenaMemory
    rows: tuple[int, int]


class Output(NamedTuple):
    """What a pass gives for each position of `logit_rows`: arrays that nobody will write again."""

    logits: Float32  # [wanted, vocab]
    hidden: Float32  # [wanted, hidden_size], what the head read; of no width if the graph does not put it out


class Program(Protocol):
    """A loaded decoder."""

    run_s: float
    """Seconds spent inside the inference library so far."""
    longest_run: int
    """Up to so many tokens of a row at once, two at least, come out as any other way to cut the text would
    have it, to the bit.
    """

    def run(self, batch: Batch, cache: CacheView) -> Output:
        """Run the graph once. Updates the cache rows in place."""
