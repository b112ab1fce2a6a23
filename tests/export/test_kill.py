"""Killed at any moment, an export leaves the artifact that was there, its own, or none: never a wrong one."""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from killed_export import Job, start, steps
from random_models import random_checkpoint, save_folder
from sardonyx.export.api import Options, export
from sardonyx.models import architectures
from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.params import SamplingParams

SMALL = architectures()["llama"].EXAMPLE
MIDDLE = {
    **SMALL,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 4000,
}
KILLS = 20
LAST_STEPS = 24
"""At the end lies all that could tear: the manifest, the new name, what was replaced."""

Files = dict[str, bytes]


def files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module", params=[MIDDLE], ids=["middle"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(random_checkpoint(request.param), tmp_path_factory.mktemp("killed") / "model")


@pytest.fixture(scope="module")
def whole(source: Path) -> dict[str, Files]:
    """The files of exports that nobody disturbed, by recipe."""
    folders = {recipe: source.parent / recipe for recipe in ("int8", "int4")}
    for recipe, folder in folders.items():
        export(source, folder, recipe=recipe, options=Options(verify=False, calibrate=False))
    return {recipe: files(folder) for recipe, folder in folders.items()}


@pytest.fixture(params=["nothing there before", "int8 there before"])
def before(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "int8 there before")


@pytest.fixture
def job(source: Path, before: bool, tmp_path: Path) -> Job:
    """An export to int4, where an artifact in int8 may be."""
    restore(tmp_path / "out", before, source)
    return source, tmp_path / "out", "int4"


def restore(out: Path, before: bool, source: Path) -> None:
    """What was there before the export; of what a kill left in hiding, nothing is touched."""
    for name in os.listdir(out) if out.is_dir() else []:
        (out / name).unlink()
    if before:
        out.mkdir(exist_ok=True)
        for path in (source.parent / "int8").iterdir():
            os.link(path, out / path.name)
    elif out.is_dir():
        out.rmdir()


def assert_sound(job: Job, before: bool, whole: dict[str, Files]) -> bool:
    """Whether what is there is the new artifact; if not, it must be what was there before, whole."""
    _, out, _ = job
    if not out.exists():
        assert not before
        with pytest.raises(ArtifactError, match="no such folder"):
            LLM.load(out)
        return False
    found = files(out)
    is_new = found == whole["int4"]
    assert is_new or (before and found == whole["int8"])
    assert LLM.load(out).generate([1, 2, 3], SamplingParams(max_tokens=1)).tokens
    return is_new


def assert_mended(job: Job, whole: dict[str, Files]) -> None:
    """The next export succeeds, and takes away what the killed ones left."""
    source, out, recipe = job
    export(source, out, recipe=recipe, options=Options(force=True, verify=False, calibrate=False))
    assert os.listdir(out.parent) == ["out"]
    assert files(out) == whole["int4"]


def killed(job: Job, moments: list[float]) -> Iterator[int | None]:
    """Exports that are killed after so many seconds; how each ended, which is 0 if it was quicker."""
    for moment in moments:
        process = start(job)
        time.sleep(moment)
        process.kill()
        process.join()
        yield process.exitcode


def test_killed_at_random_moments(job: Job, before: bool, whole: dict[str, Files]) -> None:
    source, out, _ = job
    start(job).join()  # the first takes longer
    began = time.monotonic()
    start(job).join()
    duration = time.monotonic() - began
    restore(out, before, source)
    chance = random.Random(2)
    ends = []
    for end in killed(job, sorted(chance.uniform(0, duration) for _ in range(KILLS))):
        ends.append(end)
        assert_sound(job, before, whole)
        restore(out, before, source)
    assert set(ends) <= {0, -signal.SIGKILL}
    assert -signal.SIGKILL in ends
    assert_mended(job, whole)


@pytest.mark.parametrize("source", [SMALL], indirect=True, ids=["small"])
def test_killed_at_each_of_the_last_steps(job: Job, before: bool, whole: dict[str, Files]) -> None:
    source, out, _ = job
    count = steps(job)
    outcomes = []
    for step in range(count - LAST_STEPS, count + 2):
        restore(out, before, source)
        shutil.rmtree(out.parent / ".out.partial", ignore_errors=True)  # what it holds would add steps
        process = start(job, die_at=step)
        process.join()
        assert process.exitcode == (-signal.SIGKILL if step <= count else 0)
        outcomes.append(assert_sound(job, before, whole))
    assert outcomes == sorted(outcomes)  # the old one until some step, the new one from then on
    assert set(outcomes) == {False, True}
    assert_mended(job, whole)
