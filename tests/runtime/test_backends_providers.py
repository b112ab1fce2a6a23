"""Providers by name: what is known, what is here, and what is said of the rest."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from random_models import export_random
from sardonyx.models import architectures
from sardonyx.runtime.backends import sessions
from sardonyx.runtime.backends.base import Batch, CacheView, Output
from sardonyx.runtime.backends.bookkeeping import counting
from sardonyx.runtime.backends.parted import PartedProgram
from sardonyx.runtime.backends.passes import Rules, alone, fresh, passes, single
from sardonyx.runtime.backends.probe import Kind, _model, all_rules, kinds, rules
from sardonyx.runtime.backends.providers import CPU, ON_CPU, PROVIDERS, Place, place
from sardonyx.runtime.backends.scripted import ScriptedProgram
from sardonyx.runtime.backends.sketch import FLOAT, INT64, Port, sketch
from sardonyx.runtime.errors import ArtifactError, RequestError
from sardonyx.runtime.manifest import MODEL_NAME
from sardonyx.runtime.onnx_outline import read_outline

PLAIN = Kind()
ATTENTION = _model(PLAIN)


def on_cpu(model: bytes, feeds: dict[str, Any]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = sessions.run_once(model, feeds, ON_CPU)
    return result


def test_settings_are_checked_and_spelled_for_onnxruntime() -> None:
    found = place("cuda", ["device_id=1", "use_tf32=False"], fallback=True)
    assert found == Place(PROVIDERS["cuda"], {"device_id": "1", "use_tf32": "0"}, fallback=True)


@pytest.mark.parametrize(
    ("name", "option", "says"),
    [
        ("vulkan", "", "provider vulkan: not known; choose one of auto, cuda, webgpu"),
        ("cuda", "device_id", "provider option device_id: should be KEY=VALUE"),
        ("cuda", "device=1", "provider option device: cuda does not take it; known: device_id, "),
        ("cpu", "x=1", "provider option x: cpu does not take it; known: it takes none"),
        ("cuda", "device_id=first", "provider option device_id=first: should be a whole number"),
        ("cuda", "use_tf32=1", "provider option use_tf32=1: should be true or false"),
    ],
)
def test_what_is_not_known_is_refused(name: str, option: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        place(name, [option] if option else [])


def test_the_cpu_is_always_here() -> None:
    assert sessions.present()[-1] is CPU
    assert sessions.version(CPU) == onnxruntime.__version__


def test_a_provider_that_is_not_here_names_its_package() -> None:
    with pytest.raises(
        RequestError, match=r"provider dml: not here; pip install onnxruntime-directml \(here"
    ):
        sessions.run_once(ATTENTION, {}, place("dml"))


def test_a_provider_that_did_not_start_is_an_error() -> None:
    """onnxruntime takes the CPU, and says so to nobody who does not ask."""
    with pytest.raises(RequestError, match="provider cuda: it did not start"):
        sessions._check_place(Path("x"), onnxruntime.InferenceSession(ATTENTION), place("cuda"))


BUSY = r"provider webgpu: its device cannot be used now \(out of memory\); see what else uses it or its mem"


def lost(*arguments: Any) -> Any:
    raise onnxruntime.capi.onnxruntime_pybind11_state.EPFail("out of memory")


def test_a_device_that_takes_no_work_is_not_the_fault_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_options", lambda threads, place: onnxruntime.SessionOptions())
    monkeypatch.setattr(sessions, "_session", lost)
    with pytest.raises(RequestError, match=BUSY):
        sessions.open_session(tmp_path / "model.onnx", 1, place("webgpu"))


def test_a_device_that_is_lost_while_it_works_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    program: Any = SimpleNamespace(run=lost, longest_run=2)
    parted = PartedProgram(program, Rules(single), lambda error: sessions.broken(PROVIDERS["webgpu"], error))
    one = np.ones(1, np.int32)
    batch = Batch(np.ones((1, 1), np.int64), one, one, np.zeros(1, np.int64), np.zeros(1, np.int64))
    with pytest.raises(RequestError, match=BUSY):
        parted.run(batch, CacheView([], None, (0, 1)))
    program.run = lambda *arguments: 1 / 0
    with pytest.raises(ZeroDivisionError):
        parted.run(batch, CacheView([], None, (0, 1)))


def test_a_plugin_without_a_device_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(sessions, "_devices", lambda provider: [])
    with pytest.raises(
        RequestError, match="finds no device that it takes; it needs hardware of Intel's; for"
    ):
        sessions.run_once(ATTENTION, {}, place("openvino"))


COUNTED = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (int64[rows, tokens] ids, float[vocab, width] table) => (float[rows, tokens, width] y)
        <int64 one = {1}, int64[1] last = {-1}>
    {
        [size] size = Shape(ids)
        [more] more = Add(size, one)
        [far] far = Greater(more, size)
        [wide] wide = Cast<to=1>(ids)
        [narrow] narrow = Cast<to=7>(wide)
        [sum] sum = Add(narrow, one)
        [rows] rows = Gather(table, ids)
        [gelu] gelu = Gelu(rows)
        [twice] y = Add(gelu, gelu)
    }
"""


@pytest.fixture
def counted(tmp_path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(COUNTED), tmp_path / "x.onnx")
    return tmp_path / "x.onnx"


def test_nodes_that_only_count_are_told_from_those_that_compute(counted: Path) -> None:
    found = counting(read_outline(counted))
    assert found == {"size", "more", "far", "wide", "narrow", "sum"} - {"narrow"}


def test_operators_left_to_the_cpu_are_named_unless_permitted(counted: Path) -> None:
    """An addition of sizes is none; one of what is computed with would be."""

    def part(kernel: str, *nodes: tuple[str, str]) -> Any:
        named = [SimpleNamespace(op_type=kind, name=name) for kind, name in nodes]
        return SimpleNamespace(ep_name=kernel, get_nodes=lambda: named)

    def session(*left: tuple[str, str]) -> Any:
        parts = [part("CUDAExecutionProvider", ("Gather", "rows")), part("CPUExecutionProvider", *left)]
        return SimpleNamespace(
            get_providers=lambda: ["CUDAExecutionProvider"], get_provider_graph_assignment_info=lambda: parts
        )

    sessions._check_place(counted, session(("Add", "more"), ("Greater", "far")), place("cuda"))
    with pytest.raises(
        ArtifactError, match=r"x.onnx: cuda has no kernel for Add, Gelu, .* --target cuda and recipe int4"
    ):
        sessions._check_place(counted, session(("Gelu", "gelu"), ("Add", "twice")), place("cuda"))
    sessions._check_place(counted, session(("Gelu", "gelu")), place("cuda", fallback=True))


def test_a_sketch_is_a_model() -> None:
    data = sketch(
        "Gather",
        [Port("table", FLOAT, 2), Port("rows", INT64, 1)],
        [Port("y", FLOAT, 2)],
        attributes={"axis": -1},
    )
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(on_cpu(data, {"table": table, "rows": np.array([2, 0])}), table[:, [2, 0]])


@pytest.mark.parametrize(
    "kind",
    [PLAIN, Kind(window=True), Kind(softcap=2.0), Kind(sinks=True), Kind(True, 1.5, True), Kind(half=True)],
    ids=str,
)
def test_the_cpu_gets_all_that_is_asked_right(kind: Kind) -> None:
    found = rules(on_cpu, kind)
    assert found is not None
    assert found.together is single
    assert found.widest is None


@pytest.mark.parametrize(("limit", "widest"), [(31, 31), (63, 31), (30, 1), (1, 1)])
def test_a_kernel_wrong_for_many_tokens_gets_few(limit: int, widest: int) -> None:
    def run(model: bytes, feeds: dict[str, Any]) -> NDArray[np.float32]:
        return on_cpu(model, feeds) * (feeds["qkv"].shape[1] <= limit)

    found = rules(run, PLAIN)
    assert found is not None
    assert found.widest == widest


def test_a_kernel_that_refuses_rows_together_gets_them_alone() -> None:
    def run(model: bytes, feeds: dict[str, Any]) -> NDArray[np.float32]:
        if len(feeds["qkv"]) > 1:
            raise RuntimeError("one row, please")
        return on_cpu(model, feeds)

    found = rules(run, PLAIN)
    assert found is not None
    assert found.together is alone


def test_a_kernel_that_is_always_wrong_gets_nothing() -> None:
    assert rules(lambda model, feeds: on_cpu(model, feeds) + 1, PLAIN) is None


def test_a_graph_is_asked_for_the_kinds_it_has(tmp_path: Path) -> None:
    """Gemma 2 alternates windows and caps scores: a provider that caps nothing is found out."""
    folder = tmp_path / "gemma2"
    export_random(architectures()["gemma2"].EXAMPLE, folder)
    outline = read_outline(folder / MODEL_NAME)
    assert {kind.window for kind in kinds(outline)} == {True, False}
    assert all(kind.softcap > 0 and not kind.sinks for kind in kinds(outline))

    def uncapped(model: bytes, feeds: dict[str, Any]) -> NDArray[np.float32]:
        return on_cpu(ATTENTION, feeds)

    wrong = all_rules(uncapped, outline)
    assert isinstance(wrong, Kind)
    assert "softcap" in str(wrong)
    fine = all_rules(on_cpu, outline)
    assert isinstance(fine, Rules)
    assert fine.widest is None


@given(
    pasts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    data=st.data(),
    widest=st.sampled_from([None, 1, 2, 3]),
    together=st.sampled_from([alone, single, fresh]),
)
def test_parts_give_what_the_whole_gives(
    pasts: list[int], data: st.DataObject, widest: int | None, together: Any
) -> None:
    counts = [data.draw(st.integers(0, 6)) for _ in pasts[1:]]
    counts.insert(data.draw(st.integers(0, len(counts))), data.draw(st.integers(1, 6)))
    width = max(1, *counts)
    places = [row * width + column for row, count in enumerate(counts) for column in range(count)]
    asked = sorted(data.draw(st.sets(st.sampled_from(places)))) if places else []
    rng = np.random.default_rng(0)
    batch = Batch(
        rng.integers(1, 50, (len(pasts), width)),
        np.array(counts, np.int32),
        np.array(pasts, np.int32) + np.array(counts, np.int32),
        np.array(asked, np.int64),
        np.zeros(len(pasts), np.int64),
    )
    before = rng.integers(1, 50, (len(pasts), 1, 32, 1)).astype(np.float32)

    def ran(parted: bool) -> tuple[Output, NDArray[np.float32]]:
        memory = before.copy()
        program: Any = ScriptedProgram(lambda tokens: [len(tokens), sum(tokens)], lambda tokens: [tokens[-1]])
        if parted:
            program = PartedProgram(program, Rules(together, widest=widest))
        output = program.run(batch, CacheView([memory], memory, (0, len(pasts))))
        return Output(*(array.copy() for array in output)), memory

    (whole, cached), (parts, cached_in_parts) = ran(False), ran(True)
    np.testing.assert_array_equal(parts.logits, whole.logits)
    np.testing.assert_array_equal(parts.hidden, whole.hidden)
    for row, (past, count) in enumerate(zip(pasts, counts, strict=True)):
        kept = slice(0, past + count)
        np.testing.assert_array_equal(cached_in_parts[row, :, kept], cached[row, :, kept])
    assert all(one.width <= (widest or width) for one in passes(batch, Rules(together, widest=widest)))
