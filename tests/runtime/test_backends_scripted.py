"""The backend that all above it is tested on must notice what a real one would."""

import numpy as np
import pytest

from sardonyx.runtime.backends.base import Batch, CacheView
from sardonyx.runtime.backends.scripted import ScriptedProgram, scripted_manifest
from sardonyx.runtime.model import Model, Step


def echo(tokens: list[int]) -> list[float]:
    """Sum, count and last of the tokens."""
    return [sum(tokens), len(tokens), tokens[-1]]


def batch(ids: list[list[int]], counts: list[int], lengths: list[int], wanted: list[int]) -> Batch:
    return Batch(
        np.array(ids, np.int64),
        np.array(counts, np.int32),
        np.array(lengths, np.int32),
        np.array(wanted),
        np.zeros(len(ids), np.int64),
    )


def view(rows: int, capacity: int = 8) -> CacheView:
    return CacheView([np.zeros((rows, 1, capacity, 1), np.float32)], object(), (0, rows))


def test_logits_are_of_what_the_cache_holds() -> None:
    program, memory = ScriptedProgram(echo), view(2)
    output = program.run(batch([[5, 6, 0], [7, 8, 9]], [2, 3], [2, 3], [1, 5]), memory)
    assert output.logits.tolist() == [[11, 2, 6], [24, 3, 9]]
    memory.tensors[0][1, 0, 0, 0] = 70  # whoever spoils the cache is found out
    output = program.run(batch([[1], [2]], [1, 1], [3, 4], [0, 1]), memory)
    assert output.logits.tolist() == [[12, 3, 1], [89, 4, 2]]


def test_nothing_wanted_is_nothing_given() -> None:
    assert ScriptedProgram(echo).run(batch([[5]], [1], [1], []), view(1)).logits.shape == (0, 3)


def test_a_row_of_no_positions_is_refused() -> None:
    with pytest.raises(AssertionError):
        ScriptedProgram(echo).run(batch([[5], [0]], [1, 0], [1, 0], [0]), view(2))


def test_padding_needs_room() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        ScriptedProgram(echo).run(batch([[5, 6], [7, 0]], [2, 1], [2, 4], [1, 2]), view(2, capacity=4))


def test_batches_are_there_to_be_looked_at() -> None:
    program = ScriptedProgram(echo)
    model = Model(scripted_manifest(3), program)
    model.forward([Step(model.arena.row(), [1, 2])])
    assert [found.ids.tolist() for found in program.batches] == [[[1, 2]]]
