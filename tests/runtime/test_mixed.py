"""Requests of every kind side by side on real kernels: each gets, to the bit, what it gets alone. And when
all have gone, nothing has stayed.
"""

import gc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mixed import Ask, asks, assert_as_alone, together
from random_models import random_checkpoint
from sardonyx.export.api import Options, export
from sardonyx.models.llama import EXAMPLE
from sardonyx.runtime import LLM, Memory, Reuse

LENGTHS = (
    1,
    2,
    3,
    17,
    31,
    33,
    64,
    127,
    128,
    129,
    130,
    200,
    16,
    5,
    255,
    256,
    257,
    300,
    40,
    9,
    90,
    12,
    70,
    110,
)
Expected = tuple[Path, list[Ask], Mapping[str, list[Any]]]


@pytest.fixture(scope="module", params=["fp32", "int8", "int4", "int8 with keys and values too"])
def expected(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """A folder, requests, and what each gets alone."""
    folder = tmp_path_factory.mktemp("mixed") / "artifact"
    checkpoint = random_checkpoint({**EXAMPLE, "max_position_embeddings": 400})
    recipe, *cached = request.param.split(maxsplit=1)
    options = Options(verify=False, hidden_states=True, kv="int8" if cached else "float32")
    export(checkpoint, folder, recipe=recipe, options=options)
    llm = LLM.load(folder, threads=1, memory=Memory())
    asked = asks(llm, LENGTHS, llm.manifest.vocab_size)
    return folder, asked, {ask.name: ask.alone(llm) for ask in asked}


@pytest.mark.parametrize("seed", range(2))
def test_each_gets_what_it_gets_alone(expected: Expected, seed: int) -> None:
    folder, asked, alone = expected
    llm = LLM.load(folder, threads=1, memory=Memory())
    outcome = together(llm, asked, seed, leave=4)
    assert_as_alone(outcome, alone)
    assert outcome.driven_out == 0
    assert len(llm._model.arena) == 0


def test_who_gives_way_gets_what_it_gets_alone(expected: Expected) -> None:
    """In a cache for a few of them, with beginnings known and not."""
    folder, asked, alone = expected
    each = LLM.load(folder, threads=1)._model.arena.bytes_per_position
    for reuse in (Reuse(0), Reuse()):
        llm = LLM.load(folder, threads=1, memory=Memory(4 * 350 * each, reuse))
        outcome = together(llm, asked, seed=2)
        assert_as_alone(outcome, alone)
        assert outcome.driven_out > 5
        assert llm._model.arena.nbytes <= 4 * 350 * each


def shorter(ask: Ask) -> Ask:
    algorithm, params, n = ask.case
    return replace(ask, case=(algorithm, msgspec.structs.replace(params, max_tokens=4), n))


def resident_bytes() -> int:
    """What this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell")
def test_two_thousand_requests_leave_nothing_behind(tmp_path: Path) -> None:
    """Of all kinds, many at once, every fifth cancelled: the cache is empty and memory stays as it was."""
    checkpoint = random_checkpoint({**EXAMPLE, "max_position_embeddings": 400})
    export(checkpoint, tmp_path / "tiny", recipe="fp32", options=Options(verify=False, hidden_states=True))
    llm = LLM.load(tmp_path / "tiny", threads=1, memory=Memory(reuse=Reuse(1 << 20)))
    asked = [shorter(ask) for ask in asks(llm, [1 + 7 * i % 50 for i in range(40)], 90)]
    held = []
    for turn in range(50):
        together(llm, asked, seed=turn, leave=8)
        assert len(llm._model.arena) == 0
        assert not llm._engine._tasks
        assert not llm._engine._leaving
        assert llm._model.prefixes.nbytes <= 1 << 20
        gc.collect()
        held.append(resident_bytes())
    assert max(held[25:]) - max(held[:25]) < 4 << 20
