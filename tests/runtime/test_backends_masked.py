"""Graphs of other origin: whatever they are like, each row gets what it gets alone, and what numpy says."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foreign_graphs import CONTEXT, VOCAB, Graph, reference, write_merged, write_settings
from sardonyx.runtime import LLM, SamplingParams, cache
from sardonyx.runtime.backends.masked import MaskedProgram
from sardonyx.runtime.loading import Parts, load_parts
from sardonyx.runtime.model import Model, Step
from sardonyx.runtime.strategies.beam import BeamSearch

GRAPHS = {
    "optimum": Graph(),
    "counted": Graph("counted"),
    "by shape": Graph("by_shape"),
    "in place": Graph(in_place=True),
    "kept": Graph(kept=True),
    "kept in place": Graph(kept=True, in_place=True),
    "last only": Graph(last_only=True),
    "last only in place": Graph(last_only=True, in_place=True),
    "half": Graph(half=True),
    "int32": Graph(integers="int32"),
    "decoder_model_merged": Graph("counted"),
    "decoder_with_past_model": Graph(),
}
LEGACY = ("decoder_model_merged", "decoder_with_past_model")
TEXTS = [[5, 6, 7, 8, 9, 10, 11], [20, 21], [30, 31, 32, 33], [40]]


class Foreign:
    """A model of such a graph, which counts how often onnxruntime is called."""

    def __init__(self, folder: Path, graph: Graph, kind: str = "") -> None:
        path = write_settings(folder) / (f"{kind}.onnx" if kind else "model.onnx")
        (write_merged if "merged" in kind else Graph.write)(graph, path)
        self.folder, self.graph = folder, graph
        self.tolerance = 1e-2 if graph.half else 5e-5
        self.parts: Parts = load_parts(folder, 1)
        assert isinstance(self.parts.program, MaskedProgram)
        self.runs = 0
        run = self.parts.program._session.run_with_iobinding

        def counted(*arguments: Any) -> None:
            self.runs += 1
            run(*arguments)

        self.parts.program._session.run_with_iobinding = counted

    def model(self) -> Model:
        return Model(self.parts.manifest, self.parts.program)


@pytest.fixture(scope="module", params=GRAPHS)
def foreign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foreign]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "FIRST_CAPACITY", 16)
        kind = request.param if request.param in LEGACY else ""
        yield Foreign(tmp_path_factory.mktemp("graph") / "tiny", GRAPHS[request.param], kind)


def check(found: Sequence[Any], texts: Sequence[Sequence[int]], wanted: int, foreign: Foreign) -> None:
    for logits, text in zip(found, texts, strict=True):
        expected = reference(text, foreign.graph)[-wanted:]
        np.testing.assert_allclose(logits, expected, atol=foreign.tolerance)


def test_a_whole_text_at_once(foreign: Foreign) -> None:
    model = foreign.model()
    check(model.forward([Step(model.arena.row(), TEXTS[0], 7)]), TEXTS[:1], 7, foreign)


def test_rows_of_all_lengths_side_by_side(foreign: Foreign) -> None:
    model = foreign.model()
    rows = [model.arena.row() for _ in TEXTS]
    model.forward([Step(row, text, 0) for row, text in zip(rows, TEXTS, strict=True)])
    more = [[*text, 50] for text in TEXTS]
    check(model.forward([Step(row, [50]) for row in rows]), more, 1, foreign)
    more = [[*text, 60, 61, 62] for text in more]
    found = model.forward([Step(row, [60, 61, 62], 2) for row in rows])
    check(found, more, 2, foreign)


def test_rows_in_between_may_rest(foreign: Foreign) -> None:
    model = foreign.model()
    rows = [model.arena.row() for _ in TEXTS]
    for row, text in zip(rows, TEXTS, strict=True):
        model.forward([Step(row, text)])
    found = model.forward([Step(rows[0], [50]), Step(rows[3], [51])])
    check(found, [[*TEXTS[0], 50], [*TEXTS[3], 51]], 1, foreign)
    found = model.forward([Step(rows[1], [50, 51]), Step(rows[2], [52, 53])])
    check(found, [[*TEXTS[1], 50, 51], [*TEXTS[2], 52, 53]], 1, foreign)


def test_up_to_the_end_of_the_context(foreign: Foreign) -> None:
    model = foreign.model()
    long, short = model.arena.row(), model.arena.row()
    text = [1 + i % 90 for i in range(CONTEXT)]
    model.forward([Step(long, text[:-1])])
    found = model.forward([Step(long, text[-1:]), Step(short, [3])])
    check(found, [text, [3]], 1, foreign)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_course_of_steps_forks_and_rewinds(foreign: Foreign, data: st.DataObject) -> None:
    """In company = alone = what numpy says."""
    model = foreign.model()
    rows, texts = [model.arena.row() for _ in range(3)], [[], [], []]  # type: ignore[var-annotated]
    token = st.integers(1, VOCAB - 1)
    for _ in range(data.draw(st.integers(1, 5))):
        steps, at = [], []
        for index in data.draw(st.sets(st.integers(0, 2), min_size=1)):
            keep = data.draw(st.integers(0, len(texts[index])))
            model.arena.trim(rows[index], keep)
            new = data.draw(st.lists(token, min_size=1, max_size=6))
            texts[index] = [*texts[index][:keep], *new]
            wanted = data.draw(st.integers(0, len(new)))
            steps.append(Step(rows[index], new, wanted))
            at.append((index, wanted))
        for logits, (index, wanted) in zip(model.forward(steps), at, strict=True):
            expected = reference(texts[index], foreign.graph)[len(texts[index]) - wanted :]
            np.testing.assert_allclose(logits, expected, atol=foreign.tolerance)


def test_all_of_decoding_works(foreign: Foreign) -> None:
    """Batched answers and a search are what they are one by one."""
    llm = LLM.load(foreign.folder, threads=1)
    params = SamplingParams(max_tokens=8, ignore_eos=True, temperature=0.8, seed=3)
    answer = llm.generate(TEXTS[0], SamplingParams(max_tokens=8, ignore_eos=True))
    text = list(TEXTS[0])
    for token in answer.tokens:
        assert reference(text, foreign.graph)[-1].argmax() == token
        text.append(token)
    streams = [llm.stream(text, params) for text in TEXTS]
    together = [""] * len(TEXTS)
    for pieces in zip(*streams, strict=True):
        together = [text + piece for text, piece in zip(together, pieces, strict=True)]
    assert together == [llm.generate(text, params).text for text in TEXTS]
    best = llm.generate_n(TEXTS[1], 2, SamplingParams(max_tokens=4, ignore_eos=True), BeamSearch(num_beams=3))
    assert best[0].score is not None
    assert best[1].score is not None
    assert best[0].score >= best[1].score
    assert llm.score("ab", ["c", "d"]).best.text in "cd"


@pytest.mark.parametrize(
    ("kind", "decode", "fresh", "behind"),
    [
        ("optimum", 1, 1, 1),
        ("counted", 1, 1, 1),
        ("by shape", 4, 1, 4),
        ("in place", 1, 1, 4),
        ("last only", 1, 4, 4),
    ],
)
def test_what_shares_a_pass(kind: str, decode: int, fresh: int, behind: int, tmp_path: Path) -> None:
    """Rows of different lengths: a decode step, short prompts, short runs behind a past."""
    foreign = Foreign(tmp_path, GRAPHS[kind])
    model = foreign.model()
    rows = [model.arena.row() for _ in range(4)]
    texts = [[1] * (2 + i) for i in range(4)]

    def runs(tokens: list[list[int]]) -> int:
        before = foreign.runs
        model.forward([Step(row, new) for row, new in zip(rows, tokens, strict=True)])
        return foreign.runs - before

    assert (runs(texts), runs([[5]] * 4), runs([[5, 6]] * 4)) == (fresh, decode, behind)


def test_what_finds_one_scale_for_all_tokens_gets_one_row(tmp_path: Path) -> None:
    path = Graph().write(write_settings(tmp_path) / "model.onnx")
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("DynamicQuantizeLinear", ["x0"], ["a", "b", "c"]))
    onnx.save(model, path)
    parts = load_parts(tmp_path, 1)
    assert isinstance(parts.program, MaskedProgram)
    assert parts.program._signature.mixing


def test_in_place_a_text_may_be_cut_anywhere(tmp_path: Path) -> None:
    """Up to what the kernel takes at once, to the bit: so a known beginning can be used again."""
    foreign = Foreign(tmp_path, GRAPHS["in place"])
    model = foreign.model()
    longest = model.program.longest_run
    assert 2 <= longest <= 2 * 8
    text = [1 + i % 90 for i in range(longest)]
    whole, cut = model.arena.row(), model.arena.row()
    (expected,) = model.forward([Step(whole, text, 2)])
    model.forward([Step(cut, text[:-2], 0)])
    (found,) = model.forward([Step(cut, text[-2:], 2)])
    np.testing.assert_array_equal(found, expected)


def test_a_decode_step_in_place_binds_no_state_anew(tmp_path: Path) -> None:
    foreign = Foreign(tmp_path, GRAPHS["in place"])
    model, program = foreign.model(), foreign.parts.program
    assert isinstance(program, MaskedProgram)
    made, make = [], program._session.io_binding
    program._session.io_binding = lambda: made.append(1) or make()
    row = model.arena.row()
    for _ in range(10):
        model.forward([Step(row, [1])])
    assert len(made) == 1
