"""The arena against a model of plain lists, and what it does with memory."""

import sys
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

from sardonyx.runtime import cache
from sardonyx.runtime.cache import Arena, Row
from sardonyx.runtime.manifest import State

FIRST, LIMIT = 4, 37
STATES = [
    State("past.0", "present.0", "kv", [2, 3], "float32"),
    State("past.1", "present.1", "kv", [1, 2], "float16"),
]


@pytest.fixture(autouse=True)
def small_first_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "FIRST_CAPACITY", FIRST)


WINDOW, SPARE = 6, 4
HYBRID = [*STATES, State("past.2", "present.2", "window", [WINDOW, 2], "float32", SPARE)]


def write(arena: Arena, row: Row, numbers: list[int], *, wide: bool = False) -> None:
    """Append positions to a row as a program would: through a view, of this row or of all."""
    arena.reserve(row.length + len(numbers))
    start, stop = (0, len(arena)) if wide else (row.index, row.index + 1)
    for tensor in arena.view(start, stop).tensors:
        place = tensor[row.index - start]
        if tensor.ndim == 4:
            place[:, row.length : row.length + len(numbers)] = np.array(numbers)[:, None]
        elif numbers:
            place[:] = np.concatenate([place, np.repeat(np.array(numbers)[:, None], 2, axis=1)])[-WINDOW:]
    row.length += len(numbers)


def read(arena: Arena, row: Row) -> list[int]:
    """A row's numbers, when all heads of all states agree, and windows as far as the next token reads."""
    first, *others = (tensor[row.index] for tensor in arena.view(0, len(arena)).tensors)
    numbers = first[0, : row.length, 0]
    for state in (first, *others):
        if state.ndim == 3:
            assert (state[:, : row.length] == numbers[:, None]).all()
        else:
            reached = numbers[len(numbers) - min(len(numbers), WINDOW - SPARE) :]
            assert (state[len(state) - len(reached) :] == reached[:, None]).all()
    return [int(number) for number in numbers]


class ArenaAgainstLists(RuleBasedStateMachine):
    rows = Bundle("rows")
    states = STATES

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(self.states, LIMIT)
        self.lists: dict[Row, list[int]] = {}
        self.next_number = 0
        self.seen = self.tensors()

    def tensors(self) -> tuple[object, list[Any]]:
        """What tells a backend whether memory moved, and where it really is."""
        view = self.arena.view(0, 1)
        return view.memory, [tensor.ctypes.data for tensor in view.tensors]

    @precondition(lambda self: len(self.lists) < 9)
    @rule(target=rows)
    def row(self) -> Row:
        row = self.arena.row()
        self.lists[row] = []
        return row

    @precondition(lambda self: len(self.lists) < 9)
    @rule(target=rows, parent=rows, length=st.integers(0, LIMIT))
    def fork(self, parent: Row, length: int) -> Row:
        row = self.arena.fork(parent, length)
        self.lists[row] = self.left(row, self.lists[parent], length)
        return row

    @precondition(lambda self: len(self.lists) < 9)
    @rule(
        target=rows,
        given=st.lists(consumes(rows), max_size=4, unique=True),
        picks=st.lists(st.tuples(st.integers(0, 3), st.integers(0, LIMIT)), max_size=6),
    )
    def keep(self, given: list[Row], picks: list[tuple[int, int]]) -> Any:
        kept = [(i, min(length, given[i].length)) for i, length in picks if i < len(given)]
        lists = [self.lists.pop(row) for row in given]
        children = self.arena.keep(given, kept)
        self.lists |= {
            row: self.left(row, lists[index], length)
            for row, (index, length) in zip(children, kept, strict=True)
        }
        return multiple(*children)

    @rule(row=rows, length=st.integers(0, LIMIT))
    def trim(self, row: Row, length: int) -> None:
        self.arena.trim(row, length)
        self.lists[row] = self.left(row, self.lists[row], length)

    def left(self, row: Row, numbers: list[int], length: int) -> list[int]:
        """What a row is to hold of these: all that is asked for, or nothing where windows forgot it."""
        if self.states is HYBRID and row.length == 0 and length < len(numbers):
            return []
        return numbers[:length]

    @rule(row=consumes(rows))
    def release(self, row: Row) -> None:
        self.arena.release(row)
        del self.lists[row]

    @rule(positions=st.integers(0, LIMIT))
    def reserve(self, positions: int) -> None:
        self.arena.reserve(positions)
        assert positions <= self.arena.capacity <= LIMIT

    @rule(row=rows, count=st.integers(0, 20), wide=st.booleans())
    def write(self, row: Row, count: int, wide: bool) -> None:
        count = min(count, LIMIT - row.length)
        numbers = [(self.next_number + i) % 2048 for i in range(count)]  # exact in float16
        self.next_number += count
        write(self.arena, row, numbers, wide=wide)
        self.lists[row] += numbers

    @invariant()
    def contents_are_right(self) -> None:
        assert len(self.arena) == len(self.lists)
        for row, numbers in self.lists.items():
            assert read(self.arena, row) == numbers

    @invariant()
    def rows_are_packed(self) -> None:
        assert sorted(row.index for row in self.lists) == list(range(len(self.lists)))
        lengths = self.arena.lengths(0, len(self.lists))
        assert all(lengths[row.index] == len(numbers) for row, numbers in self.lists.items())

    @invariant()
    def memory_is_new_exactly_when_the_tensors_moved(self) -> None:
        memory, addresses = self.tensors()
        assert (memory is self.seen[0]) == (addresses == self.seen[1])
        # kept alive, so that no fresh tensor can come to lie at an old address
        self.alive = [*getattr(self, "alive", []), self.arena.view(0, 1).tensors]
        self.seen = memory, addresses

    def teardown(self) -> None:
        for row in [*self.lists, self.arena.row()]:
            self.arena.release(row)
        assert len(self.arena) == 0
        assert self.arena.nbytes == Arena(self.states, LIMIT).nbytes


class HybridArenaAgainstLists(ArenaAgainstLists):
    states = HYBRID


ArenaAgainstLists.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
HybridArenaAgainstLists.TestCase.settings = ArenaAgainstLists.TestCase.settings
test_arena_against_lists = pytest.mark.usefixtures("small_first_capacity")(ArenaAgainstLists.TestCase)
test_hybrid_arena_against_lists = pytest.mark.usefixtures("small_first_capacity")(
    HybridArenaAgainstLists.TestCase
)


def test_a_window_can_be_set_back_as_far_as_it_has_to_spare() -> None:
    """Less one: whoever computes the last position again sets it back once more."""
    arena = Arena(HYBRID, LIMIT)
    for back, left in ((1, 11), (SPARE - 1, 9), (SPARE, 0), (11, 0)):
        row = arena.row()
        write(arena, row, list(range(12)))
        arena.trim(row, 12 - back)
        assert read(arena, row) == list(range(left))
        arena.release(row)


def test_what_a_window_forgot_stays_forgotten() -> None:
    """Setting back, going on and setting back again reaches no further than the first time."""
    arena = Arena(HYBRID, LIMIT)
    row = arena.row()
    write(arena, row, list(range(12)))
    arena.trim(row, 10)
    write(arena, row, [10])
    fork = arena.fork(row, 9)
    assert (read(arena, fork), read(arena, row)) == (list(range(9)), list(range(11)))
    arena.trim(row, 8)
    assert read(arena, row) == []
    write(arena, row, [1, 2])
    arena.trim(row, 1)
    assert read(arena, row) == [1]


def test_a_failed_pass_leaves_a_row_with_windows_empty() -> None:
    arena = Arena(HYBRID, LIMIT)
    row = arena.row()
    write(arena, row, [1, 2, 3])
    arena.undo(row, 2, 2)
    assert (row.length, row.canonical, row.floor) == (0, 0, 0)


def test_growth_is_by_doubling_up_to_the_limit() -> None:
    arena = Arena(STATES, LIMIT)
    seen = []
    for positions in range(LIMIT + 1):
        arena.reserve(positions)
        seen.append(arena.capacity)
    assert list(dict.fromkeys(seen)) == [4, 8, 16, 32, LIMIT]


def test_a_limit_below_the_first_capacity_is_kept() -> None:
    assert Arena(STATES, 3).capacity == 3


def test_memory_comes_back_when_a_burst_is_over() -> None:
    arena = Arena(STATES, LIMIT)
    at_first = arena.nbytes
    stays, *burst = (arena.row() for _ in range(16))
    write(arena, stays, [1, 2, 3])
    write(arena, burst[0], list(range(LIMIT)))
    assert arena.nbytes > 100 * at_first
    for row in burst:
        arena.release(row)
    assert arena.nbytes <= 4 * at_first
    assert read(arena, stays) == [1, 2, 3]
    arena.release(stays)
    assert arena.nbytes == at_first


def test_no_more_is_taken_than_may_be() -> None:
    """Not at first, nor as rows come, nor as they leave, when what is left has room for more of each."""
    for most in range(4, 40):
        arena = Arena(STATES, LIMIT, most_bytes=most * Arena(STATES, LIMIT).bytes_per_position)
        limit = arena.nbytes // arena.capacity * most
        rows: list[Row] = []
        assert arena.nbytes <= limit
        for _ in range(most // 2):
            rows.append(arena.row())
            assert arena.nbytes <= limit
        while rows:
            arena.release(rows.pop())
            assert arena.nbytes <= limit


def test_a_row_that_comes_and_goes_moves_nothing() -> None:
    """A program's bindings outlive a request."""
    arena = Arena(STATES, LIMIT)
    memory = arena.view(0, 1).memory
    for _ in range(3):
        row = arena.row()
        write(arena, row, [7] * FIRST)
        arena.release(row)
    assert arena.view(0, 1).memory is memory


def test_memory_in_use_stays_where_it_is() -> None:
    arena = Arena(STATES, LIMIT)
    stays, leaves = arena.row(), arena.row()
    write(arena, stays, list(range(9)))
    memory = arena.view(0, 1).memory
    arena.release(leaves)
    assert (arena.view(0, 1).memory, arena.capacity) == (memory, 16)


def test_a_view_is_remade_only_when_it_must_be() -> None:
    arena = Arena(STATES, LIMIT)
    arena.row(), arena.row()
    assert arena.view(0, 1) is arena.view(0, 1)
    assert arena.view(0, 2).rows == (0, 2)
    assert [tensor.shape[0] for tensor in arena.view(1, 2).tensors] == [1, 1]


def test_keep_copies_no_more_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children take their parents over, and rows that nobody keeps are overwritten where they are."""
    arena = Arena(STATES, LIMIT)
    rows = [arena.row() for _ in range(4)]
    for number, row in enumerate(rows):
        write(arena, row, [number] * 3)
    copied: list[tuple[int, int, int]] = []
    monkeypatch.setattr(arena, "_copy", lambda *place: copied.append(place))
    children = arena.keep(rows, [(2, 1), (0, 3), (2, 3), (2, 2)])
    assert children[:2] == [rows[2], rows[0]]
    assert {*children} == {*rows}
    assert sorted(length for _, _, length in copied) == [2, 3]


@pytest.mark.parametrize("kept", [[(0, 3)], [(1, 0)], [(-1, 0)], [(0, -1)]])
def test_keep_refuses_what_is_not_there(kept: list[tuple[int, int]]) -> None:
    arena = Arena(STATES, LIMIT)
    row = arena.row()
    write(arena, row, [5, 6])
    with pytest.raises(ValueError, match="not there"):
        arena.keep([row], [(0, 1), *kept])
    assert (len(arena), read(arena, row)) == (1, [5, 6])


def test_a_second_release_is_noticed() -> None:
    """It would hand one row to two."""
    arena = Arena(STATES, LIMIT)
    row, _ = arena.row(), arena.row()
    arena.release(row)
    with pytest.raises(AssertionError, match="released before"):
        arena.release(row)


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")
def test_room_takes_no_memory_until_it_is_written() -> None:
    arena = Arena([State("past", "present", "kv", [2, 64], "float32")], 40_000)
    rows = [arena.row() for _ in range(8)]

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    arena.reserve(40_000)
    (tensor,) = arena.view(0, len(rows)).tensors
    tensor[:, :, :10] = 1
    assert arena.nbytes > 150 << 20
    assert resident() - before < 8 << 20
    assert not tensor[:, :, 10:20].any()
