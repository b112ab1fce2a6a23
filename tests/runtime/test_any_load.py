"""Real kernels under loads that nobody thought of: arrivals, priorities, cancellations, memory and beginnings
that are known, as hypothesis draws them; and many threads. Who is not cancelled gets, to the bit, what it
gets alone.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from mixed import Ask, answers_of, asks
from random_models import random_checkpoint
from sardonyx.export.api import Options, export
from sardonyx.models import lfm2, llama
from sardonyx.runtime import LLM, Memory, Reuse

LENGTHS = (1, 2, 9, 31, 33, 64, 127, 128, 129, 130, 200, 257, 300, 5, 17, 90, 3, 140)
ROOMIEST = 4 * 350
"""Positions that the hungriest of them takes."""
PATIENCE_S = 120
Alone = Mapping[str, list[Any]]


class Shop:
    """A model, what may be asked of it, and what each gets alone, in a normal and in an exact engine."""

    def __init__(self, folder: Path, asked: Sequence[Ask], alone: Mapping[bool, Alone]) -> None:
        self._folder = folder
        self.asked = asked
        self.alone = alone

    def llm(self, exact: bool, positions: int | None, reuse: int) -> LLM:
        """With a cache for so many positions, or any number."""
        most = positions and positions * self._open(exact, Memory())._model.arena.bytes_per_position
        return self._open(exact, Memory(most, Reuse(reuse)))

    def _open(self, exact: bool, memory: Memory) -> LLM:
        return LLM.load(self._folder, threads=1, check=False, exact=exact, memory=memory)


@pytest.fixture(scope="module", params=[(llama, "int8"), (lfm2, "int4")], ids=["llama", "lfm2"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """With a cache that holds all, and with one that remembers the last positions only."""
    model, recipe = request.param
    folder = tmp_path_factory.mktemp("load") / "artifact"
    checkpoint = random_checkpoint({**model.EXAMPLE, "max_position_embeddings": 400})
    export(checkpoint, folder, recipe=recipe, options=Options(verify=False, hidden_states=True))
    asked = asks(LLM.load(folder, threads=1), LENGTHS, 90)
    alone = {}
    for exact in (False, True):
        llm = LLM.load(folder, threads=1, exact=exact, memory=Memory())
        alone[exact] = {ask.name: ask.alone(llm) for ask in asked}
    return Shop(folder, asked, alone)


@dataclass(frozen=True)
class Visit:
    """Who asks, how many steps after the one before, how urgently, and after how many steps it leaves."""

    who: int
    gap: int
    priority: int
    leaves: int | None


VISITS = st.builds(
    Visit,
    who=st.integers(0, len(LENGTHS) - 1),
    gap=st.integers(0, 6),
    priority=st.integers(-2, 2),
    leaves=st.none() | st.integers(0, 25),
)


@settings(max_examples=60)
@given(
    st.lists(VISITS, min_size=1, max_size=14),
    st.none() | st.integers(ROOMIEST, 3 * ROOMIEST),
    st.sampled_from([0, 4_000, 1 << 20]),
    st.booleans(),
)
def test_any_load(shop: Shop, visits: list[Visit], positions: int | None, reuse: int, exact: bool) -> None:
    llm = shop.llm(exact, positions, reuse)
    running: list[tuple[Visit, Any, int]] = []
    clock, due = 0, 0
    waiting = list(visits)
    while waiting or not all(stream._task.done for _, stream, _ in running):
        while waiting and clock >= due + waiting[0].gap:
            due, visit = clock, waiting.pop(0)
            ask = replace(shop.asked[visit.who], priority=visit.priority)
            running.append((visit, ask.begin(llm), clock))
        for visit, stream, began in running:
            if visit.leaves is not None and clock >= began + visit.leaves:
                stream.cancel()
        llm._engine.step()
        arena = llm._model.arena
        assert arena.most is None or arena.nbytes <= arena.most * arena.bytes_per_position
        assert llm._model.prefixes.nbytes <= reuse
        clock += 1
    assert len(llm._model.arena) == 0
    for visit, stream, _ in running:
        assert stream._task.error is None
        got = answers_of(stream)
        cancelled = any(one.finish_reason == "cancelled" for one in stream.completions)
        assert_got(got, shop.alone[exact][shop.asked[visit.who].name], cancelled)


def assert_got(got: list[Any], expected: list[Any], cancelled: bool) -> None:
    """All of it, or the beginning."""
    if not cancelled:
        assert got == expected
    for (tokens, *_), (whole, *_) in zip(got, expected, strict=False):
        assert tokens == whole[: len(tokens)]


@pytest.mark.parametrize("positions", [None, ROOMIEST])
def test_many_threads_and_coroutines_come_and_go(shop: Shop, positions: int | None) -> None:
    """Each asks one thing after the other, and leaves some of it unfinished."""
    llm = shop.llm(False, positions, 1 << 20)

    def check(ask: Ask, stream: Any, left: bool) -> None:
        assert_got(answers_of(stream), shop.alone[False][ask.name], left)

    def thread(seed: int) -> int:
        rng = random.Random(seed)
        for ask in rng.sample(shop.asked, 6):
            stream = ask.begin(llm)
            leaves = rng.random() < 0.3
            if leaves:
                for _ in stream:
                    if rng.random() < 0.3:
                        break
            else:
                stream.wait()
            check(ask, stream, leaves)
        return seed

    async def visit(rng: random.Random) -> None:
        for ask in rng.sample(shop.asked, 4):
            stream = ask.begin(llm)
            leaves = rng.random() < 0.3
            if leaves:
                waiting = asyncio.ensure_future(stream._whole())
                for _ in range(rng.randrange(5)):
                    await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
            else:
                await stream
            check(ask, stream, leaves)

    def loop(seed: int) -> int:
        async def main() -> None:
            await asyncio.gather(*(visit(random.Random(10 * seed + i)) for i in range(3)))

        asyncio.run(main())
        return seed

    with ThreadPoolExecutor(10) as pool:
        jobs = [pool.submit(thread, seed) for seed in range(8)] + [
            pool.submit(loop, seed) for seed in range(2)
        ]
        assert [job.result(PATIENCE_S) for job in jobs] == [*range(8), *range(2)]
    assert len(llm._model.arena) == 0
    assert llm._engine.step() is False
