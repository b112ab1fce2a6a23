"""The prefix cache against plain lists: what comes out of it belongs to exactly the text asked for."""

import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from sardonyx.runtime import cache, prefixes
from sardonyx.runtime.backends.scripted import scripted_manifest
from sardonyx.runtime.cache import Arena, Row
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.manifest import State
from sardonyx.runtime.prefixes import PrefixCache, Reuse
from sardonyx.runtime.saved_prefix import SavedPrefix, write
from sardonyx.runtime.saved_prefix import read as load_prefix
from scripted_llm import FILES

LIMIT = 40
STATES = [
    State("past.0", "present.0", "kv", [2, 3], "float32"),
    State("past.1", "present.1", "kv", [1, 2], "float16"),
]
MANIFEST = msgspec.structs.replace(scripted_manifest(2), states=STATES, files=FILES)
BLOCK = 3
BLOCK_BYTES = BLOCK * (2 * 3 * 4 + 1 * 2 * 2)
runs = st.lists(st.integers(0, 1), min_size=1, max_size=14)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "FIRST_CAPACITY", 4)
    monkeypatch.setattr(prefixes, "BLOCK", BLOCK)
    monkeypatch.setattr("os.fsync", lambda _: None)  # no power will fail


def number(text: list[int]) -> int:
    """What a program makes of a text: the state of its last position. Exact in float16."""
    return zlib.crc32(bytes(text)) % 2048


def compute(arena: Arena, row: Row, text: list[int], tokens: list[int]) -> None:
    """Append the states of tokens to a row that holds a text, as a program would."""
    arena.reserve(row.length + len(tokens))
    numbers = [number([*text, *tokens[: i + 1]]) for i in range(len(tokens))]
    for tensor in arena.view(row.index, row.index + 1).tensors:
        tensor[0, :, row.length : row.length + len(tokens)] = np.array(numbers)[:, None]
    row.extend(len(tokens), canonical=len(tokens) > 1)


def read(arena: Arena, row: Row) -> list[int]:
    """A row's numbers, when all heads of all states agree."""
    states = arena.read(row, 0, row.length)
    numbers = states[0][0, :, 0]
    for state in states:
        assert (state == numbers[:, None]).all()
    return [int(number) for number in numbers]


def expected(text: list[int]) -> list[int]:
    return [number(text[: i + 1]) for i in range(len(text))]


def shared(one: list[int], other: list[int]) -> int:
    """Tokens with which both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


class PrefixesAgainstLists(RuleBasedStateMachine):
    """Rows are fed as the engine does it, forked, trimmed, left; texts are looked for and forgotten."""

    rows = Bundle("rows")

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(STATES, LIMIT)
        self.reuse = Reuse(4 * BLOCK_BYTES + 5)
        self.prefixes = PrefixCache(self.arena, self.reuse)
        self.texts: dict[Row, list[int]] = {}
        self.folder = TemporaryDirectory()
        self.saved: list[Path] = []
        self.pinned: list[list[int]] = []

    @precondition(lambda self: len(self.texts) < 6)
    @rule(target=rows)
    def row(self) -> Row:
        row = self.arena.row()
        self.texts[row] = []
        return row

    @rule(row=rows, tokens=runs, spare=st.integers(0, 4))
    def feed(self, row: Row, tokens: list[int], spare: int) -> None:
        text = self.texts[row]
        tokens = tokens[: LIMIT - len(text)]
        count = self.prefixes.extend(row, text, tokens, spare)
        assert 0 <= count <= max(0, len(tokens) - spare)
        text += tokens[:count]
        if rest := tokens[count:]:
            compute(self.arena, row, text, rest)
            text += rest
        self.prefixes.store(row, text)

    @precondition(lambda self: len(self.texts) < 6)
    @rule(target=rows, parent=rows, length=st.integers(0, LIMIT))
    def fork(self, parent: Row, length: int) -> Row:
        row = self.arena.fork(parent, length)
        self.texts[row] = self.texts[parent][:length]
        return row

    @rule(row=rows, length=st.integers(0, LIMIT))
    def trim(self, row: Row, length: int) -> None:
        self.arena.trim(row, length)
        del self.texts[row][length:]

    @rule(row=consumes(rows))
    def release(self, row: Row) -> None:
        self.arena.release(row)
        del self.texts[row]

    @rule(blocks=st.integers(0, 4))
    def shrink(self, blocks: int) -> None:
        self.prefixes.shrink(blocks * BLOCK_BYTES)
        assert self.prefixes.nbytes <= blocks * BLOCK_BYTES

    @rule(text=runs)
    def save(self, text: list[int]) -> None:
        try:
            states = self.prefixes.states(whole := self.prefixes.whole(text))
        except RequestError:
            return
        for state in states:
            assert (state == np.array(expected(list(whole)))[:, None]).all()
        self.saved.append(Path(self.folder.name) / f"{len(self.saved)}.kv")
        write(self.saved[-1], MANIFEST, SavedPrefix(None, whole, states))

    @precondition(lambda self: self.saved)
    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        found = load_prefix(data.draw(st.sampled_from(self.saved)), MANIFEST)
        self.prefixes.pin(found.tokens, found.states)
        self.pinned.append(list(found.tokens))

    @rule(text=runs)
    def what_is_known_of_a_text_is_right(self, text: list[int]) -> None:
        row = self.arena.row()
        count = self.prefixes.extend(row, [], text, 0)
        assert count % BLOCK == 0
        common = [shared(text, known) for known in self.pinned]
        assert count >= max(common, default=0) // BLOCK * BLOCK
        assert (row.length, row.canonical) == (count, count)
        assert read(self.arena, row) == expected(text[:count])
        self.arena.release(row)

    @invariant()
    def rows_hold_their_texts(self) -> None:
        for row, text in self.texts.items():
            assert read(self.arena, row) == expected(text)
            assert row.canonical <= row.length

    @invariant()
    def the_memory_is_kept_to(self) -> None:
        assert self.prefixes.nbytes <= self.reuse.bytes

    def teardown(self) -> None:
        self.folder.cleanup()  # what is mapped stays readable
        for row in self.texts:
            self.arena.release(row)
        assert len(self.arena) == 0
        self.prefixes.shrink(0)
        assert self.prefixes.nbytes == 0
        assert len(self.prefixes._blocks) == 0


PrefixesAgainstLists.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
test_prefixes_against_lists = pytest.mark.usefixtures("small_blocks")(PrefixesAgainstLists.TestCase)


def prefixes_of(*texts: list[int], blocks: int = 100, answers: bool = False) -> PrefixCache:
    """A cache that has seen these texts, each computed at once."""
    arena = Arena(STATES, LIMIT)
    found = PrefixCache(arena, Reuse(blocks * BLOCK_BYTES, answers))
    for text in texts:
        row = arena.row()
        compute(arena, row, [], text)
        found.store(row, text)
        arena.release(row)
    return found


def known(found: PrefixCache, text: list[int]) -> int:
    row = found._arena.row()
    count = found.extend(row, [], text, 0)
    found._arena.release(row)
    return count


ONES, TWOS, MIXED = [1] * 9, [2] * 9, [1] * 6 + [2] * 3


def test_texts_share_the_blocks_that_they_begin_with() -> None:
    found = prefixes_of(ONES, MIXED)
    assert found.nbytes == 4 * BLOCK_BYTES
    assert [known(found, text) for text in (ONES, MIXED, TWOS)] == [9, 9, 0]
    assert known(found, [1] * 7 + [2] * 2) == 6


def test_the_longest_unused_goes_first_and_from_its_end() -> None:
    found = prefixes_of(ONES, TWOS, blocks=6)
    known(found, ONES)
    found.shrink(4 * BLOCK_BYTES)
    assert [known(found, text) for text in (ONES, TWOS)] == [9, 3]


def test_a_text_longer_than_the_memory_is_kept_as_far_as_it_goes() -> None:
    found = prefixes_of(TWOS, ONES, blocks=2)
    assert [known(found, text) for text in (ONES, TWOS)] == [6, 0]


def test_what_is_known_of_the_row_already_is_not_taken_again() -> None:
    found = prefixes_of(ONES)
    row = found._arena.row()
    compute(found._arena, row, [], ONES[:4])
    assert found.extend(row, ONES[:4], ONES[4:], 0) == 5
    assert read(found._arena, row) == expected(ONES)


def test_so_many_are_spared() -> None:
    found = prefixes_of(ONES)
    counts = []
    for spare in range(10):
        row = found._arena.row()
        counts.append(found.extend(row, [], ONES, spare))
    assert counts == [9, 6, 6, 6, 3, 3, 3, 0, 0, 0]


@pytest.mark.parametrize("answers", [False, True])
def test_what_was_computed_token_by_token_is_kept_only_if_wanted(answers: bool) -> None:
    found = prefixes_of(answers=answers)
    arena, row = found._arena, found._arena.row()
    compute(arena, row, [], ONES[:7])
    for place in (7, 8):
        compute(arena, row, ONES[:place], ONES[place : place + 1])
    assert (row.length, row.canonical) == (9, 7)
    found.store(row, ONES)
    assert known(found, ONES) == (9 if answers else 6)


def test_nothing_kept_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = prefixes_of(blocks=0)
    row = found._arena.row()
    compute(found._arena, row, [], ONES)
    monkeypatch.setattr(found._arena, "read", lambda *_: pytest.fail("copied"))
    found.store(row, ONES)
    assert (found.nbytes, known(found, ONES)) == (0, 0)


def test_what_lies_in_a_file_takes_no_memory_and_stays() -> None:
    made = prefixes_of(ONES)
    found = prefixes_of(MIXED, blocks=3)
    found.pin(ONES, made.states(ONES))
    assert found.nbytes == BLOCK_BYTES
    found.shrink(0)
    assert [known(found, text) for text in (ONES, MIXED, TWOS)] == [9, 6, 0]
    row = found._arena.row()
    compute(found._arena, row, [], MIXED)
    found.store(row, MIXED)
    assert (found.nbytes, known(found, MIXED)) == (BLOCK_BYTES, 9)


def test_a_block_is_a_copy() -> None:
    """The row goes on, and the arena gives its memory to others."""
    found = prefixes_of()
    arena, row = found._arena, found._arena.row()
    compute(arena, row, [], ONES)
    found.store(row, ONES)
    for tensor in arena.view(0, 1).tensors:
        tensor[...] = 7
    other: Any = arena.row()
    found.extend(other, [], ONES, 0)
    assert read(arena, other) == expected(ONES)
