"""Rows of tokens to forward passes and back, on the scripted backend and, to the bit, on the real one."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from random_models import export_random
from sardonyx.models.llama import EXAMPLE
from sardonyx.runtime import cache
from sardonyx.runtime.backends.ort import OrtProgram, query_block
from sardonyx.runtime.backends.scripted import ScriptedProgram, scripted_manifest
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.manifest import State
from sardonyx.runtime.model import BATCHED_TOKENS, Model, Step

CONTEXT = 60
TOKENS = np.random.default_rng(2).integers(1, 99, (4, 60)).tolist()


@pytest.fixture(autouse=True, scope="module")
def growing_cache() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "FIRST_CAPACITY", 4)
        yield


def fingerprint(tokens: Sequence[int]) -> list[float]:
    """Two numbers that tell texts apart, exact in float32."""
    return [len(tokens), sum((place + 1) * token for place, token in enumerate(tokens)) % 65521]


def scripted() -> tuple[Model, ScriptedProgram]:
    program = ScriptedProgram(fingerprint)
    return Model(scripted_manifest(2, CONTEXT), program), program


feeds = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 25), st.integers(0, 25)), max_size=5)


@given(turns=st.lists(feeds, max_size=6))
def test_each_row_gets_the_logits_of_its_own_tokens(turns: list[list[tuple[int, int, int]]]) -> None:
    model, _ = scripted()
    rows = [model.arena.row() for _ in range(5)]
    texts: list[list[int]] = [[] for _ in rows]
    for turn in turns:
        steps = {
            row: Step(rows[row], list(range(count)), min(wanted, count))
            for row, count, wanted in turn
            if len(texts[row]) + count <= CONTEXT
        }
        for (row, step), logits in zip(steps.items(), model.forward([*steps.values()]), strict=True):
            texts[row] += step.tokens
            stops = range(len(texts[row]) - step.wanted + 1, len(texts[row]) + 1)
            assert logits.tolist() == [fingerprint(texts[row][:stop]) for stop in stops]
        assert [row.length for row in rows] == [len(text) for text in texts]


def test_passes_are_as_few_as_keep_kernels_apart() -> None:
    """All single tokens, all short runs, and each long run alone; empty rows between get a token."""
    model, program = scripted()
    rows = [model.arena.row() for _ in range(6)]
    counts = [1, BATCHED_TOKENS, BATCHED_TOKENS + 1, 2, 1, 30]
    model.forward([Step(row, [7] * count) for row, count in zip(rows, counts, strict=True)])
    assert [(found.counts.tolist(), found.ids.shape[1]) for found in program.batches] == [
        ([1, 1, 1, 1, 1], 1),
        ([16, 1, 2], 16),
        ([17], 17),
        ([30], 30),
    ]


def test_nothing_to_do_is_not_done() -> None:
    model, program = scripted()
    assert model.forward([]) == []
    assert program.batches == []


def test_the_context_can_be_filled_and_not_outgrown() -> None:
    model, program = scripted()
    row, other = model.arena.row(), model.arena.row()
    model.forward([Step(row, [1] * (CONTEXT - 1)), Step(other, [2])])
    model.forward([Step(row, [1]), Step(other, [2] * BATCHED_TOKENS)])
    before = len(program.batches)
    for step in (Step(row, [1]), Step(other, [1] * CONTEXT)):
        with pytest.raises(RequestError, match="the model holds 60"):
            model.forward([Step(model.arena.row(), [3]), step])
    assert len(program.batches) == before
    assert (row.length, other.length) == (CONTEXT, BATCHED_TOKENS + 1)


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_what_fails_leaves_all_rows_as_they_were(passes: int) -> None:
    model, program = scripted()
    rows = [model.arena.row() for _ in range(3)]
    model.forward([Step(row, [1, 2, 3]) for row in rows])
    steps = [Step(rows[0], [4]), Step(rows[1], [5, 6]), Step(rows[2], [7] * 30)]
    run, left = program.run, passes

    def interrupted(*given: object) -> object:
        nonlocal left
        left -= 1
        output = run(*given)  # type: ignore[arg-type]
        if left == 0:
            raise KeyboardInterrupt
        return output

    program.run = interrupted  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        model.forward(steps)
    assert [row.length for row in rows] == [3, 3, 3]
    logits = model.forward(steps)
    assert [rows[0].tolist() for rows in logits] == [fingerprint([1, 2, 3, *step.tokens]) for step in steps]


@pytest.fixture(scope="module")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Model]:
    folder: Path = tmp_path_factory.mktemp("model") / "artifact"
    _, manifest = export_random(EXAMPLE, folder)
    program = OrtProgram(folder, manifest, threads=1)
    return lambda: Model(manifest, program)


@pytest.mark.parametrize("counts", [[1, 1, 1, 1], [2, 16, 5, 2], [1, 7, 1, 3], [20, 1, 4, 17]])
@pytest.mark.parametrize("past", [0, 23])
def test_company_changes_not_a_bit(make_model: Callable[[], Model], counts: list[int], past: int) -> None:
    """Of the logits, and of what the cache holds for later."""

    def feed(model: Model, *places: int) -> list[list[float]]:
        rows = {place: model.arena.row() for place in places}
        if past:
            model.forward([Step(row, TOKENS[place][:past], 0) for place, row in rows.items()])
        runs = {place: TOKENS[place][past : past + counts[place]] for place in places}
        logits = model.forward([Step(row, runs[place], counts[place]) for place, row in rows.items()])
        after = model.forward([Step(row, [9]) for row in rows.values()])
        return [[*now.ravel(), *later.ravel()] for now, later in zip(logits, after, strict=True)]

    together = feed(make_model(), 0, 1, 2, 3)
    for place in range(4):
        assert together[place] == feed(make_model(), place)[0]


@pytest.mark.parametrize(
    ("head", "l2_bytes", "queries"),
    [(16, 1 << 20, 32), (64, 1 << 20, 128), (128, 1 << 20, 256), (128, 1 << 18, 64), (64, None, 128)],
)
def test_queries_that_the_kernel_takes_at_once(head: int, l2_bytes: int | None, queries: int) -> None:
    states = [State("past", "present", "kv", [2, head], "float32")]
    assert query_block(states, l2_bytes) == queries


@pytest.mark.parametrize("start", [0, 32, 64, 480])
def test_any_part_of_a_longest_run_comes_out_as_in_the_whole(tmp_path: Path, start: int) -> None:
    """And in a longer one the last token may not, which is what the limit is for."""
    _, manifest = export_random({**EXAMPLE, "max_position_embeddings": 600}, tmp_path / "artifact")
    program = OrtProgram(tmp_path / "artifact", manifest, threads=1)
    text = np.random.default_rng(1).integers(1, 99, 600).tolist()
    assert program.longest_run == 2 * 16

    def states(*cuts: int) -> list[NDArray[Any]]:
        model = Model(manifest, program)
        row = model.arena.row()
        for stop in (*range(32, start + 1, 32), *(start + cut for cut in cuts)):
            model.forward([Step(row, text[row.length : stop], 0)])
        return model.arena.read(row, start, row.length)

    whole = states(32)
    for cut in range(2, 32):
        for part, of_whole in zip(states(cut), whole, strict=True):
            assert np.array_equal(part, of_whole[:, :cut])
    longer, cut_otherwise = states(33), states(31, 33)
    assert not all(np.array_equal(*pair) for pair in zip(longer, cut_otherwise, strict=True))
