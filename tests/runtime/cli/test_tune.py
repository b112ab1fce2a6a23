"""`sardonyx tune`: recipes are timed on this machine, and one is recommended."""

import re
from pathlib import Path

import pytest

from command_line import Call
from random_models import random_checkpoint, save_folder
from sardonyx.models import architectures
from sardonyx.runtime.cli.tuning import Candidate, Timing, Work, recommended

EXAMPLE = architectures()["llama"].EXAMPLE
WORK = Work(100, 50)
LIMITS = {"fine": 0.01, "coarse": 0.2}


def timing(recipe: str, threads: int, prefill: list[float], decode: list[float]) -> Timing:
    return Timing(Candidate(recipe), threads, 1000, prefill, decode)


def test_the_fastest_request_is_recommended() -> None:
    slow, fast = timing("fine", 2, [100.0], [50.0]), timing("coarse", 2, [200.0], [50.0])
    assert (slow.seconds(WORK), fast.seconds(WORK)) == (2.0, 1.5)
    assert recommended([slow, fast], WORK, LIMITS) is fast


def test_of_equally_fast_ones_the_better_is_recommended() -> None:
    fine, coarse = timing("fine", 2, [97.0], [50.0]), timing("coarse", 2, [100.0], [50.0])
    assert recommended([coarse, fine], WORK, LIMITS) is fine
    few = timing("fine", 1, [98.0], [50.0])
    assert recommended([coarse, fine, few], WORK, LIMITS) is few


def test_of_equally_good_and_fast_ones_the_smaller_blocks_are_recommended() -> None:
    large, small = (Timing(Candidate("fine", n), 2, 1000, [100.0], [50.0]) for n in (128, 32))
    assert recommended([large, small], WORK, LIMITS) is small


def test_medians_forget_a_slow_minute() -> None:
    assert timing("fine", 1, [100.0, 1.0, 100.0], [50.0, 50.0, 2.0]).seconds(WORK) == 2.0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_folder(random_checkpoint(EXAMPLE), tmp_path / "tiny")


def test_all_candidates_are_timed(call: Call, model: Path) -> None:
    result = call(
        "tune", str(model), "--seconds", "0", "--threads", "1", "--prompt-tokens", "20", "--new-tokens", "4"
    )
    assert result.code == 0, result.err
    rows = result.out.splitlines()
    assert rows[0].split()[:4] == ["RECIPE", "BLOCK", "THREADS", "SIZE"]
    assert sorted(tuple(row.split()[:2]) for row in rows[1:5]) == [
        *(("int4", "32"), ("int4-small", "32"), ("int8", "-"), ("q8", "-"))
    ]
    assert re.fullmatch(r"recommended: --recipe (q8|int8|int4|int4-small), with --threads 1", rows[5])
    assert "medians of 1 rounds; the request: 20 tokens, 4 new ones" in result.err


def test_what_is_not_there_is_refused(call: Call, model: Path) -> None:
    result = call("tune", str(model), "--recipe", "int3")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "int3" in result.err
    result = call("tune", str(model), "--recipe", "q8", "--prompt-tokens", "100000", "--seconds", "0")
    assert result.code == 2
    assert "more than the context" in result.err
