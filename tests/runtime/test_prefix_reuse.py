"""Beginnings that are known are not computed again, and nothing but the time shows it."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from random_models import export_random
from sardonyx.models.llama import EXAMPLE
from sardonyx.runtime import LLM, Memory, Reuse, SamplingParams, prefixes
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.backends.scripted import ScriptedProgram, scripted_manifest
from sardonyx.runtime.engine import Engine
from sardonyx.runtime.model import Model
from sardonyx.runtime.strategies import Feed, Strategy
from sardonyx.runtime.strategies.beam import BeamSearch
from sardonyx.runtime.strategies.prompt_lookup import PromptLookup
from scripted_llm import scripted_llm

VOCAB, CONTEXT, BLOCK, CHUNK = 11, 128, 4, 16
REUSE = Reuse(1 << 20)
PROMPT = [int(token) for token in np.random.default_rng(3).integers(0, VOCAB, 45)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "BLOCK", BLOCK)


def babble(tokens: Sequence[int]) -> list[float]:
    """Logits that depend on every token and its place."""
    return list(np.random.default_rng(zlib.crc32(bytes(tokens))).standard_normal(VOCAB))


class Desk:
    """An engine on babble with a prefix cache."""

    def __init__(self, reuse: Reuse = REUSE, exact: bool = False) -> None:
        self.program = ScriptedProgram(babble)
        self.model = Model(scripted_manifest(VOCAB, CONTEXT), self.program, Memory(reuse=reuse))
        self.engine = Engine(self.model, CHUNK, exact)

    def answer(self, *feeds: Feed, fresh: bool = False) -> tuple[list[Any], int, int]:
        """Logits of the feeds, tokens computed for them, and tokens reused."""
        got: list[Any] = []

        def strategy() -> Strategy:
            for feed in feeds:
                logits = yield feed
                got.append([rows.tolist() for rows in logits])

        before = len(self.program.batches)
        task = self.engine.submit(strategy(), fresh=fresh)
        while self.engine.step():
            pass
        assert task.error is None
        assert len(self.model.arena) == 0
        computed = sum(int(batch.counts.sum()) for batch in self.program.batches[before:])
        return got, computed, task.reused


def test_the_second_time_only_the_end_is_computed() -> None:
    desk = Desk()
    cold, computed, reused = desk.answer(Feed([PROMPT]))
    assert (computed, reused) == (45, 0)
    warm, computed, reused = desk.answer(Feed([PROMPT]))
    assert (computed, reused) == (5, 40)  # 44 lie in blocks, but two are to be left
    assert warm == cold


@pytest.mark.parametrize("length", range(1, 14))
def test_no_token_is_left_to_be_computed_alone(length: int) -> None:
    desk = Desk()
    cold, *_ = desk.answer(Feed([PROMPT[:length]]))
    desk.answer(Feed([PROMPT]))
    before = len(desk.program.batches)
    warm, computed, _ = desk.answer(Feed([PROMPT[:length]]))
    assert warm == cold
    assert [batch.ids.shape[1] for batch in desk.program.batches[before:]] == [computed]
    assert computed == length if length < BLOCK + 2 else 2 <= computed < 2 + BLOCK


def test_a_text_that_goes_another_way_is_known_as_far_as_it_goes() -> None:
    desk = Desk()
    desk.answer(Feed([PROMPT]))
    other = PROMPT[:21] + [(token + 1) % VOCAB for token in PROMPT[21:]]
    got, _, reused = desk.answer(Feed([other]))
    assert reused == 20
    assert got == Desk().answer(Feed([other]))[0]


def test_logits_that_are_wanted_are_computed() -> None:
    """Log probabilities of a prompt are never skipped."""
    desk = Desk()
    desk.answer(Feed([PROMPT]))
    for wanted, reused in ((45, 0), (30, 12), (0, 40)):
        got = desk.answer(Feed([PROMPT], wanted=wanted))
        assert got[2] == reused
        assert got[0] == Desk().answer(Feed([PROMPT], wanted=wanted))[0]


def test_a_later_feed_may_be_known_too() -> None:
    """A text that comes in pieces, as for scoring."""
    desk = Desk()
    desk.answer(Feed([PROMPT]))
    pieces = [Feed([PROMPT[:10]], wanted=0), Feed([PROMPT[10:]], wanted=3)]
    got, computed, reused = desk.answer(*pieces)
    assert got == Desk().answer(*pieces)[0]
    assert (computed, reused) == (2 + 5, 8 + 30)


def test_what_is_to_be_fresh_takes_nothing_and_leaves_nothing() -> None:
    desk = Desk()
    desk.answer(Feed([PROMPT]), fresh=True)
    assert desk.model.prefixes.nbytes == 0
    desk.answer(Feed([PROMPT]))
    assert desk.answer(Feed([PROMPT]), fresh=True)[1:] == (45, 0)


@pytest.mark.parametrize(("reuse", "exact", "known"), [
    (REUSE, False, 40), (Reuse(1 << 20, answers=True), False, 52), (REUSE, True, 52),
])  # fmt: skip
def test_an_answer_is_known_where_that_is_wanted_or_exact(reuse: Reuse, exact: bool, known: int) -> None:
    """Tokens computed one by one are not what a prompt's would be; in exact mode there are none."""
    desk = Desk(reuse, exact)
    said = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    desk.answer(Feed([PROMPT]), *(Feed([[token]]) for token in said))
    text = [*PROMPT, *said, 1, 2, 3, 4]
    got, _, reused = desk.answer(Feed([text]))
    assert reused == known + (4 if known == 40 else 0)
    assert got == Desk().answer(Feed([text]))[0]


def test_a_prompt_that_was_given_up_is_known_as_far_as_it_came() -> None:
    desk = Desk()

    def strategy() -> Strategy:
        yield Feed([PROMPT])

    task = desk.engine.submit(strategy())
    desk.engine.step()
    desk.engine.cancel(task)
    assert len(desk.model.arena) == 0
    assert desk.answer(Feed([PROMPT]))[1:] == (45 - CHUNK, CHUNK)


def test_one_text_is_known_while_another_still_decodes() -> None:
    desk = Desk()

    def decode() -> Strategy:
        yield Feed([PROMPT])
        while True:
            yield Feed([[1]])

    task = desk.engine.submit(decode())
    for _ in range(5):
        desk.engine.step()
    second = desk.engine.submit(decode())
    desk.engine.step()
    assert second.reused == 40
    for other in (task, second):
        desk.engine.cancel(other)


@pytest.fixture(scope="module", params=["fp32", "int8", "int4"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "artifact"
    export_random({**EXAMPLE, "max_position_embeddings": 400}, folder, request.param)
    return folder


def logits_of(llm: LLM, *feeds: Feed) -> tuple[list[Any], int]:
    """As `LLM.logits`, but with the prefix cache, and how much came from there."""
    got: list[Any] = []

    def strategy() -> Strategy:
        for feed in feeds:
            (logits,) = yield feed
            got.append(logits.tolist())

    task = llm._engine.submit(strategy())
    while llm._engine.step():
        pass
    return got, task.reused


def test_cold_is_warm_to_the_bit(artifact: Path) -> None:
    """On the real kernels: logits of what follows a beginning, however much of it was known."""
    cold, warm = (LLM.load(artifact, threads=2, memory=Memory(reuse=reuse)) for reuse in (Reuse(0), REUSE))
    text = [int(token) for token in np.random.default_rng(5).integers(1, 99, 300)]
    for length, known in ((37, 0), (300, 36), (122, 120), (299, 296), (260, 256)):
        feeds = [Feed([text[:length]]), *(Feed([[token]]) for token in (5, 6, 7))]
        assert logits_of(cold, *feeds)[1] == 0
        assert logits_of(warm, *feeds) == (logits_of(cold, *feeds)[0], known)


@pytest.fixture
def parrot() -> Iterator[LLM]:
    llm = scripted_llm()
    yield llm
    assert len(llm._model.arena) == 0


def test_a_turn_of_a_chat_computes_what_is_new(parrot: LLM) -> None:
    said = [{"role": "system", "content": "say it again and again"}, {"role": "user", "content": "hello"}]
    first = parrot.chat(said)
    assert (first.usage.prompt_tokens, first.usage.cached_tokens) == (30, 0)
    said += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "good bye"}]
    second = parrot.chat(said)
    assert (second.text, second.usage.prompt_tokens, second.usage.cached_tokens) == ("good bye", 45, 28)


@pytest.mark.parametrize(
    "algorithm", [BeamSearch(num_beams=3), PromptLookup(prompt_lookup_num_tokens=4)], ids=["beam", "lookup"]
)
def test_every_algorithm_begins_where_the_known_ends(parrot: LLM, algorithm: Any) -> None:
    params = SamplingParams(max_tokens=8)
    texts = [parrot.generate("what you say I say", params, algorithm) for _ in range(2)]
    assert texts[0].tokens == texts[1].tokens
    assert [one.usage.cached_tokens for one in texts] == [0, 16]


def test_scores_are_the_same(parrot: LLM) -> None:
    first, second = (parrot.score("once upon a time there", [" was", " were"]) for _ in range(2))
    assert first == second


def test_answers_are_the_same_without(artifact: Path) -> None:
    params = SamplingParams(temperature=1.0, seed=4, max_tokens=20)
    text = [int(token) for token in np.random.default_rng(6).integers(1, 99, 50)]
    without = LLM.load(artifact, threads=1, memory=Memory(reuse=Reuse(0))).generate(text, params)
    llm = LLM.load(artifact, threads=1)
    for cached in (0, 48):
        found = llm.generate(text, params)
        assert (found.tokens, found.usage.cached_tokens) == (without.tokens, cached)


def test_programs_of_the_runtime_alone_keep_nothing(artifact: Path) -> None:
    """A model on its own, as the ladder uses it, has no memory for it."""
    manifest = LLM.load(artifact, threads=1).manifest
    assert Model(manifest, OrtProgram(artifact, manifest, 1)).prefixes.nbytes == 0
