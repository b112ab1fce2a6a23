"""onnxruntime: what is bound, how often, and what is said when a graph is not what it should be."""

import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace

from random_models import export_random
from sardonyx.models.llama import EXAMPLE
from sardonyx.runtime import LLM, SamplingParams, cache
from sardonyx.runtime.backends import ort as backend
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.manifest import MODEL_NAME, Manifest, State
from sardonyx.runtime.model import Model, Step

VOCAB = EXAMPLE["vocab_size"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("ort") / "artifact"
    _, manifest = export_random(EXAMPLE, folder)
    return folder, manifest


class Counted:
    """A model on onnxruntime, and how often anything was bound for it."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.program = OrtProgram(folder, manifest, threads=1)
        self.model = Model(manifest, self.program)
        self.bindings = 0
        make = self.program._session.io_binding

        def io_binding() -> Any:
            self.bindings += 1
            return make()

        self.program._session.io_binding = io_binding

    def new_bindings(self, do: Callable[[], object]) -> int:
        before = self.bindings
        do()
        return self.bindings - before


@pytest.fixture
def counted(artifact: tuple[Path, Manifest]) -> Iterator[Counted]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "FIRST_CAPACITY", 16)
        yield Counted(*artifact)


def test_a_decode_step_binds_nothing_anew(counted: Counted) -> None:
    model = counted.model
    row, other = model.arena.row(), model.arena.row()
    steps = [Step(row, [1]), Step(other, [2])]
    assert counted.new_bindings(lambda: model.forward(steps)) == 1
    assert counted.new_bindings(lambda: [model.forward(steps) for _ in range(10)]) == 0


def test_shapes_and_rows_have_bindings_of_their_own(counted: Counted) -> None:
    model = counted.model
    row, other = model.arena.row(), model.arena.row()
    shapes = [
        [Step(row, [1])],
        [Step(other, [1])],
        [Step(row, [1]), Step(other, [1])],
        [Step(row, [1, 2])],
        [Step(row, [1, 2], wanted=2)],
        [Step(row, [1], wanted=0)],
    ]
    for steps in shapes:
        assert counted.new_bindings(lambda steps=steps: model.forward(steps)) == 1
        model.arena.trim(row, 0)
    for steps in shapes:
        assert counted.new_bindings(lambda steps=steps: model.forward(steps)) == 0


def test_only_so_many_bindings_are_kept(counted: Counted) -> None:
    model = counted.model
    row = model.arena.row()

    def step(width: int) -> None:
        model.forward([Step(row, [1] * width)])
        model.arena.trim(row, 0)

    model.arena.reserve(30)
    for width in range(1, backend.BINDINGS + 1):
        step(width)
    assert counted.new_bindings(lambda: step(1)) == 0  # and is now the last used
    assert counted.new_bindings(lambda: step(backend.BINDINGS + 1)) == 1
    assert counted.new_bindings(lambda: step(1)) == 0
    assert counted.new_bindings(lambda: step(2)) == 1


def test_logits_are_not_written_again(counted: Counted) -> None:
    """Whatever the shapes of later passes, and without a copy."""
    row = counted.model.arena.row()
    kept, copies = [], []
    for tokens in ([1], [2], [3, 4, 5], [6], [7, 8, 9]):
        (logits,) = counted.model.forward([Step(row, tokens, wanted=len(tokens))])
        kept.append(logits)
        copies.append(logits.copy())
    for logits, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(logits, copy)
    assert len({tuple(row) for logits in kept for row in logits}) == 9


def test_memory_that_moved_is_bound_anew(counted: Counted) -> None:
    """And what is computed does not change."""
    model = counted.model
    row = model.arena.row()
    tokens = np.random.default_rng(3).integers(1, 99, 40).tolist()
    (whole,) = model.forward([Step(row, tokens, len(tokens))])
    model.arena.release(row)
    assert model.arena.capacity == 16
    row, found = model.arena.row(), []
    for place, token in enumerate(tokens):
        if place in (3, 20):
            model.arena.row()  # another row, then more rows than there are places
        capacity = model.arena.capacity
        bound = counted.new_bindings(lambda token=token: found.extend(model.forward([Step(row, [token])])))
        assert bound == (place in (0, 3, 20) or capacity != model.arena.capacity)
    np.testing.assert_allclose(np.concatenate(found), whole, atol=2e-5)


def test_a_decode_step_allocates_no_more_than_its_logits(counted: Counted) -> None:
    model = counted.model
    row = model.arena.row()
    model.arena.reserve(100)
    steps = [Step(row, [1])]
    for _ in range(3):
        model.forward(steps)
    tracer = sys.gettrace()
    sys.settrace(None)  # who measures coverage allocates, too
    tracemalloc.start()
    try:
        model.forward(steps)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        sys.settrace(tracer)
    assert peak < VOCAB * 4 + 4096 < model.arena.nbytes / 10


def test_two_models_in_one_process_do_not_meet(artifact: tuple[Path, Manifest], tmp_path: Path) -> None:
    other_folder = tmp_path / "other"
    export_random({**EXAMPLE, "num_hidden_layers": 1, "vocab_size": 50}, other_folder)
    params = SamplingParams(max_tokens=20, ignore_eos=True)
    alone = [
        LLM.load(folder, threads=1).generate([5, 6], params).text for folder in (artifact[0], other_folder)
    ]
    streams = [LLM.load(folder, threads=1).stream([5, 6], params) for folder in (artifact[0], other_folder)]
    texts = ["", ""]
    for pieces in zip(*streams, strict=True):
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
    assert texts == alone
    assert alone[0] != alone[1]


def test_run_s_is_the_time_inside(counted: Counted) -> None:
    assert counted.program.run_s == 0
    counted.model.forward([Step(counted.model.arena.row(), [1])])
    assert 0 < counted.program.run_s < 5


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux shows them")
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_are_as_many_as_asked_for(artifact: tuple[Path, Manifest], threads: int) -> None:
    before = set(os.listdir("/proc/self/task"))
    program = OrtProgram(*artifact, threads)
    assert len(set(os.listdir("/proc/self/task")) - before) == threads - 1
    del program


# graphs that are not what they should be


def first_state(manifest: Manifest, **changes: Any) -> list[State]:
    return [replace(manifest.states[0], **changes), *manifest.states[1:]]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        (lambda manifest: {"vocab_size": 98}, "logits"),
        (lambda manifest: {"hidden_size": 48}, "hidden"),
        (lambda manifest: {"states": manifest.states[1:]}, "past_key_values.0.key"),
        (lambda manifest: {"states": first_state(manifest, input="more") + manifest.states}, "more"),
        (lambda manifest: {"states": first_state(manifest, shape=[2, 8])}, "past_key_values.0.key"),
        (lambda manifest: {"states": first_state(manifest, dtype="int8")}, "past_key_values.0.key"),
    ],
)
def test_a_graph_of_another_shape_is_refused(
    artifact: tuple[Path, Manifest], changes: Callable[[Manifest], dict[str, Any]], name: str
) -> None:
    folder, manifest = artifact
    with pytest.raises(ArtifactError, match=rf"model\.onnx: its {name} is not what sardonyx\.json says"):
        OrtProgram(folder, replace(manifest, **changes(manifest)), threads=1)


def test_a_graph_with_more_inputs_is_refused(artifact: tuple[Path, Manifest], tmp_path: Path) -> None:
    folder, manifest = artifact
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    model = onnx.load(folder / MODEL_NAME, load_external_data=False)
    more = onnx.helper.make_tensor_value_info("position_ids", onnx.TensorProto.INT64, ["rows"])
    model.graph.input.append(more)
    onnx.save(model, tmp_path / MODEL_NAME)
    with pytest.raises(ArtifactError, match="its position_ids is not what"):
        OrtProgram(tmp_path, manifest, threads=1)


@pytest.mark.parametrize("content", [b"", b"nonsense" * 99])
def test_what_is_no_graph_is_one_line(
    artifact: tuple[Path, Manifest], tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / MODEL_NAME).write_bytes(content)
    with pytest.raises(
        ArtifactError, match=r"^\S+model\.onnx: onnxruntime \S+ cannot load it \(it needs .*$"
    ) as caught:
        OrtProgram(tmp_path, artifact[1], threads=1)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_graph_without_its_weights_is_one_line(
    artifact: tuple[Path, Manifest], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / MODEL_NAME).write_bytes((artifact[0] / MODEL_NAME).read_bytes())
    with pytest.raises(ArtifactError, match=r"cannot load it .* does not exist") as caught:
        OrtProgram(tmp_path, artifact[1], threads=1)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_run_that_fails_says_so_once(counted: Counted, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match="indices element out of data bounds"):
        counted.model.forward([Step(counted.model.arena.row(), [VOCAB])])
    assert capfd.readouterr() == ("", "")


# what onnxruntime is told before it starts

SPY = """
import os, sys
class Spy:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print(os.environ.get("ORT_DISABLE_TELEMETRY"))
            raise SystemExit
sys.meta_path.insert(0, Spy())
import sardonyx.runtime.llm
"""


@pytest.mark.parametrize(("given", "told"), [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")])
def test_telemetry_is_off_before_onnxruntime_is_imported(given: dict[str, str], told: str) -> None:
    """Unless somebody has asked for it."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    spied = subprocess.run(
        [sys.executable, "-c", SPY], env=environment | given, capture_output=True, text=True, check=True
    )
    assert spied.stdout.strip() == told
