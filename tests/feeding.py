"""The ways in which tokens reach a model. Logits must not depend on the way, beyond rounding."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.model import Model, Step

Sequences = Sequence[Sequence[int]]
Logits = list[NDArray[np.float32]]
"""For each sequence `[tokens, vocab]`."""


def prefill(model: Model, sequences: Sequences) -> Logits:
    """Each sequence at once and by itself."""
    return [model.forward([Step(model.arena.row(), tokens, len(tokens))])[0] for tokens in sequences]


def step_by_step(model: Model, sequences: Sequences) -> Logits:
    """Token after token, all sequences together."""
    return _cut(model, sequences, [[1]] * len(sequences))


def chunks(model: Model, sequences: Sequences) -> Logits:
    """In pieces of uneven length, single tokens among them, and each sequence by itself."""
    return [_cut(model, [tokens], [[7, 1, 3, 18, 2]])[0] for tokens in sequences]


def ragged_batch(model: Model, sequences: Sequences) -> Logits:
    """All sequences in one batch, with different pasts, each in its own rhythm."""
    rhythms = [[3, 1, 1, 5], [17, 1, 2, 4], [11, 1, 7, 1, 2]]
    return _cut(model, sequences, [rhythms[i % 3] for i in range(len(sequences))])


def _cut(model: Model, sequences: Sequences, rhythms: Sequence[Sequence[int]]) -> Logits:
    """Feed the sequences side by side: on turn n, sequence i takes `rhythms[i][n]` tokens, cyclically."""
    rows = [model.arena.row() for _ in sequences]
    logits: list[Logits] = [[] for _ in sequences]
    for turn in range(max(map(len, sequences))):
        steps = {
            i: Step(row, piece, len(piece))
            for i, row in enumerate(rows)
            if (piece := sequences[i][row.length :][: rhythms[i][turn % len(rhythms[i])]])
        }
        if not steps:
            break
        for i, part in zip(steps, model.forward(list(steps.values())), strict=True):
            logits[i].append(part)
    return [np.concatenate(parts) for parts in logits]


FEEDINGS: Mapping[str, Callable[[Model, Sequences], Logits]] = {
    feed.__name__: feed for feed in (prefill, step_by_step, chunks, ragged_batch)
}
