"""A model whose rows remember their last positions only: set back, forked, failed, never silently wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from random_models import export_random, random_checkpoint
from sardonyx.export.api import Options, export
from sardonyx.export.convolution import SPARE
from sardonyx.models.lfm2 import EXAMPLE
from sardonyx.runtime.backends.base import Batch, CacheView, Output
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.engine import Engine
from sardonyx.runtime.manifest import Manifest
from sardonyx.runtime.model import Memory, Model
from sardonyx.runtime.prefixes import Reuse
from sardonyx.runtime.strategies import Decoding, Feed

TOKENS = np.random.default_rng(4).integers(1, 99, 100).tolist()
NOISE = 2e-5
CHUNK = 16


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("hybrid") / "artifact"
    return folder, export_random(EXAMPLE, folder)[1]


@pytest.fixture
def model(artifact: tuple[Path, Manifest]) -> Model:
    folder, manifest = artifact
    return Model(manifest, OrtProgram(folder, manifest, threads=1), Memory(reuse=Reuse()))


def answers(engine: Engine, *feeds: Feed) -> list[Any]:
    """What each feed is answered, `[rows][wanted, vocab]`."""

    def asked() -> Decoding[list[Any]]:
        found = []
        for feed in feeds:
            logits = yield feed
            found.append([np.array(rows) for rows in logits])
        return found

    task = engine.submit(asked())
    while not task.done:
        engine.step()
    assert task.error is None
    found: list[Any] = task.result  # type: ignore[assignment]
    return found


def whole(model: Model, tokens: Sequence[int], wanted: int = 1) -> Any:
    return answers(Engine(model, CHUNK), Feed([tokens], wanted=wanted))[0][0]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("back", [1, SPARE - 2, SPARE - 1, SPARE, SPARE + 7, 60])
def test_a_row_set_back_goes_on_as_if_it_had_never_been_further(model: Model, back: int, exact: bool) -> None:
    """As far as windows reach, and beyond, where the tokens are computed once more: whole or one by one."""
    kept = 60 - back
    later = [Feed([[token]]) for token in TOKENS[kept + 1 : kept + 4]]
    feeds = (Feed([TOKENS[:60]]), Feed([TOKENS[kept : kept + 1]], keep=[(0, kept)]), *later)
    found = answers(Engine(model, CHUNK, exact), *feeds)[1:]
    expected = whole(model, TOKENS[: kept + 4], wanted=4)
    np.testing.assert_allclose(np.concatenate([rows[0] for rows in found]), expected, rtol=0, atol=NOISE)


def test_forks_from_far_back_and_from_here_go_on_side_by_side(model: Model) -> None:
    feeds = (
        Feed([TOKENS[:60]]),
        Feed([TOKENS[60:62], TOKENS[58:61], TOKENS[9:11]], keep=[(0, 60), (0, 58), (0, 9)], wanted=2),
        Feed([[], [], []], keep=[(0, 61), (1, 61), (2, 10)]),
        Feed([[1], [2], TOKENS[:40]], keep=[(2, 5), (1, 60), (0, 30)]),
    )
    _, second, _, last = answers(Engine(model, CHUNK), *feeds)
    for found, stop in zip(second, (62, 61, 11), strict=True):
        np.testing.assert_allclose(found, whole(model, TOKENS[:stop], wanted=2), rtol=0, atol=NOISE)
    texts = ([*TOKENS[:5], 1], [*TOKENS[:60], 2], [*TOKENS[:30], *TOKENS[:40]])
    for found, text in zip(last, texts, strict=True):
        np.testing.assert_allclose(found, whole(model, text), rtol=0, atol=NOISE)


class Interrupted:
    """A program that fails once, after it has written."""

    def __init__(self, program: OrtProgram, calls: int) -> None:
        self.run_s = 0.0
        self.longest_run = 1 << 20
        self._program = program
        self._calls = calls

    def run(self, batch: Batch, cache: CacheView) -> Output:
        output = self._program.run(batch, cache)
        self._calls -= 1
        if self._calls == 0:
            raise KeyboardInterrupt
        return output


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 5])
def test_a_step_that_failed_may_be_taken_again(artifact: tuple[Path, Manifest], calls: int) -> None:
    folder, manifest = artifact
    program = OrtProgram(folder, manifest, threads=1)
    model = Model(manifest, Interrupted(program, calls))
    engine = Engine(model, CHUNK)

    def asked() -> Decoding[list[Any]]:
        yield Feed([TOKENS[:40]])
        yield Feed([TOKENS[40:41]])
        return (yield Feed([TOKENS[41:42]]))  # type: ignore[return-value]

    task = engine.submit(asked())
    interrupts = 0
    while not task.done:
        try:
            engine.step()
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts == 1
    found: Any = task.result
    expected = whole(Model(manifest, program), TOKENS[:42])
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=NOISE)


def test_keeping_positions_that_never_were_is_an_error(model: Model) -> None:
    def asked() -> Decoding[None]:
        yield Feed([TOKENS[:50]])
        yield Feed([[1]], keep=[(0, 10)])
        yield Feed([[1]], keep=[(0, 12)])

    engine = Engine(model, CHUNK)
    task = engine.submit(asked())
    while not task.done:
        engine.step()
    assert isinstance(task.error, ValueError)
    assert "12 positions of row 0" in str(task.error)


def test_beginnings_are_not_put_together_from_what_does_not_hold_them(model: Model) -> None:
    """The prefix cache is for states that keep every position; here each prompt is computed."""
    engine = Engine(model, CHUNK)
    for _ in range(2):
        (found,) = answers(engine, Feed([TOKENS[:90]]))
        np.testing.assert_allclose(found[0], whole(model, TOKENS[:90]), rtol=0, atol=NOISE)
    assert model.prefixes.nbytes == 0


def test_the_manifest_says_what_a_row_remembers(artifact: tuple[Path, Manifest]) -> None:
    manifest = artifact[1]
    window = next(state for state in manifest.states if state.kind == "window")
    assert (window.shape, window.spare) == ([SPARE + 2, EXAMPLE["hidden_size"]], SPARE)
    attentions = 2 * 2 * 16 * 4  # key and value of one layer, 2 heads of 16 floats
    assert manifest.cache_bytes_per_token() == attentions


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_a_hybrid_is_certified(recipe: str, tmp_path: Path) -> None:
    """In company = alone and rewound = fresh hold to the bit."""
    checkpoint = random_checkpoint({**EXAMPLE, "max_position_embeddings": 256})
    export(checkpoint, tmp_path / "out", recipe=recipe, options=Options(verify=True))


def test_who_gave_way_for_want_of_memory_is_computed_again_as_it_was(artifact: tuple[Path, Manifest]) -> None:
    """Two rows that fit into the cache at first and not at last. Windows count, and come back to the bit."""
    folder, manifest = artifact
    program = OrtProgram(folder, manifest, threads=1)
    arena = Model(manifest, program).arena
    assert arena.overhead > SPARE
    most = 2 * (80 + arena.overhead) * arena.bytes_per_position
    texts = (TOKENS, TOKENS[::-1])

    def asked(text: Sequence[int]) -> Decoding[list[Any]]:
        logits = yield Feed([text[:20]])
        found = [np.array(logits[0])]
        for token in text[20:]:
            logits = yield Feed([[token]])
            found.append(np.array(logits[0]))
        return found

    def run(model: Model, texts: Sequence[Sequence[int]]) -> tuple[list[Any], list[int]]:
        engine = Engine(model, CHUNK)
        tasks = [engine.submit(asked(text)) for text in texts]
        rows = []
        while engine.step():
            rows.append(len(model.arena))
            assert model.arena.nbytes <= most
        return [task.result for task in tasks], rows

    found, rows = run(Model(manifest, program, Memory(most)), texts)
    assert rows.count(2) > 20 < rows.count(1)  # side by side, until one gave way
    for results, text in zip(found, texts, strict=True):
        ((expected,), _) = run(Model(manifest, program), [text])
        np.testing.assert_array_equal(np.concatenate(results), np.concatenate(expected))
