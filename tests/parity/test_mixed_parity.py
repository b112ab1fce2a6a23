"""The real model under a mixed load: 24 requests of every kind, prompts of 1 to 1,500 tokens, joining and
leaving at random, get to the bit what they get alone. With room for all of them, and with room for few.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from mixed import asks, assert_as_alone, together
from sardonyx.export.api import Options, export
from sardonyx.runtime import LLM, Memory, Reuse

pytestmark = pytest.mark.parity

LENGTHS = (
    1500,
    2,
    65,
    130,
    1,
    300,
    40,
    129,
    16,
    17,
    31,
    600,
    90,
    260,
    33,
    200,
    5,
    900,
    128,
    12,
    3,
    257,
    70,
    45,
)
ROOM = 6 * 1600
"""Positions for all rows together, where there is room for few."""


@pytest.fixture(scope="module")
def artifacts(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    shelf = tmp_path_factory.mktemp("mixed")
    for recipe in ("fp32", "int8", "int4"):
        export(smollm2, shelf / recipe, recipe=recipe, options=Options(verify=False, hidden_states=True))
    return {path.name: path for path in shelf.iterdir()}


@pytest.mark.parametrize("recipe", ["fp32", "int8", "int4"])
def test_each_gets_what_it_gets_alone(artifacts: Mapping[str, Path], recipe: str) -> None:
    amateur = LLM.load(artifacts["int8"], check=False)
    llm = LLM.load(artifacts[recipe], check=False, memory=Memory())
    asked = asks(amateur, LENGTHS, llm.manifest.vocab_size)
    alone = {ask.name: ask.alone(llm) for ask in asked}
    outcome = together(llm, asked, seed=1, leave=4)
    assert_as_alone(outcome, alone)
    assert len(llm._model.arena) == 0

    each = llm._model.arena.bytes_per_position
    llm = LLM.load(artifacts[recipe], check=False, memory=Memory(ROOM * each, Reuse()))
    outcome = together(llm, asked, seed=2)
    assert_as_alone(outcome, alone)
    assert outcome.driven_out > 0
    print(f"\n{recipe}: {len(asked)} requests, {outcome.driven_out} times one gave way")
