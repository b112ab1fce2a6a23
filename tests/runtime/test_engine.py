"""Strategies side by side: each gets what it gets alone, whatever others do, and leaves nothing behind."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from sardonyx.runtime import cache, prefixes
from sardonyx.runtime.backends.base import Batch, CacheView, Float32, Output
from sardonyx.runtime.backends.scripted import ScriptedProgram, scripted_manifest
from sardonyx.runtime.engine import CHUNK, Engine
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.model import Memory, Model
from sardonyx.runtime.prefixes import NO_REUSE, Reuse
from sardonyx.runtime.strategies import Feed, Strategy
from sardonyx.runtime.task import Task

VOCAB = 11
CONTEXT = 96
BLOCK = 4
Said = list[Any]


@pytest.fixture(autouse=True, scope="module")
def growing_cache() -> Iterator[None]:
    """A cache that grows while these short texts are fed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "FIRST_CAPACITY", 4)
        patch.setattr(prefixes, "BLOCK", BLOCK)
        yield


def babble(tokens: Sequence[int]) -> list[float]:
    """Logits that depend on every token and its place."""
    return list(np.random.default_rng(zlib.crc32(bytes(tokens))).standard_normal(VOCAB))


def greedy(prompt: Sequence[int], said: Said) -> Strategy:
    """Ten tokens, the likeliest each."""
    (logits,) = yield Feed([prompt])
    for _ in range(10):
        said.append(int(logits[-1].argmax()))
        (logits,) = yield Feed([[said[-1]]])


def beam(prompt: Sequence[int], said: Said, width: int = 3) -> Strategy:
    """Six tokens, the likeliest together: rows multiply, change places and die."""
    ((first,),) = yield Feed([prompt])
    scores, texts = np.zeros(1), [[]]
    logits = [first]
    for _ in range(6):
        flat = (scores[:, None] + np.array(logits, np.float64)).ravel()
        best = np.argsort(-flat, kind="stable")[:width]
        parents = [int(place) // VOCAB for place in best]
        scores = flat[best]
        texts = [[*texts[p], int(place) % VOCAB] for p, place in zip(parents, best, strict=True)]
        length = len(prompt) + len(texts[0]) - 1
        received = yield Feed([text[-1:] for text in texts], keep=[(p, length) for p in parents])
        logits = [rows[-1] for rows in received]
    said += texts


def guess(prompt: Sequence[int], said: Said) -> Strategy:
    """Greedy, but with guesses fed ahead each time, and the cache trimmed to those that were right."""
    sequence, known = [*prompt], 0
    while len(said) < 10:
        guesses = [len(sequence) % VOCAB, *said[-1:], 3]
        fed = sequence[known:] + guesses
        (logits,) = yield Feed([fed], keep=[(0, known)] if known else None, wanted=len(guesses) + 1)
        for row, guessed in zip(logits, [*guesses, None], strict=True):
            said.append(int(row.argmax()))
            sequence.append(said[-1])
            if said[-1] != guessed:
                break
        known = len(sequence) - 1


def score(prompt: Sequence[int], said: Said) -> Strategy:
    """What the model thinks of every token of a text."""
    (logits,) = yield Feed([prompt], wanted=len(prompt))
    said += [float(row.max()) for row in logits]


def ragged(prompt: Sequence[int], said: Said) -> Strategy:
    """Rows of different lengths, one of them empty; then all are dropped, and another begins anew."""
    for tokens in ([prompt, prompt[:1], []], [[1], [2, 3], [4]]):
        logits = yield Feed(tokens, wanted=2)
        said += [rows.round(4).tolist() for rows in logits]
    said.append((yield Feed([], keep=[])))
    (logits,) = yield Feed([prompt])
    said += logits.argmax(-1).tolist()


KINDS: dict[str, Callable[[Sequence[int], Said], Strategy]] = {
    strategy.__name__: strategy for strategy in (greedy, beam, guess, score, ragged)
}


class TwoKernels(ScriptedProgram):
    """As real ones do, it computes tokens that come alone otherwise than others, and remembers it: all that
    follows is different.
    """

    def run(self, batch: Batch, cache: CacheView) -> Output:
        alone = batch.ids.shape[1] == 1
        return super().run(replace(batch, ids=2 * batch.ids + alone), cache)


class Desk:
    """An engine on babble, and what its strategies have said. The cache has room for `most` positions."""

    def __init__(
        self,
        chunk: int = CHUNK,
        program: ScriptedProgram | None = None,
        most: int | None = None,
        reuse: Reuse = NO_REUSE,
    ) -> None:
        self.program = program or TwoKernels(babble)
        most_bytes = None if most is None else 4 * most
        self.model = Model(scripted_manifest(VOCAB, CONTEXT), self.program, Memory(most_bytes, reuse))
        self.engine = Engine(self.model, chunk)
        self.tasks: list[tuple[Task, str, Sequence[int], Said]] = []

    def submit(self, kind: str, prompt: Sequence[int], priority: int = 0) -> Task:
        said: Said = []
        task = self.engine.submit(KINDS[kind](prompt, said), priority=priority)
        self.tasks.append((task, kind, prompt, said))
        return task

    def drain(self) -> None:
        while self.engine.step():
            most = self.model.arena.most
            assert most is None or self.model.arena.nbytes <= 4 * most
        assert len(self.model.arena) == 0


def alone(kind: str, prompt: Sequence[int], chunk: int = CHUNK) -> Said:
    desk = Desk(chunk)
    desk.submit(kind, prompt)
    desk.drain()
    return desk.tasks[0][-1]


def prompts(count: int) -> Iterator[list[int]]:
    for length in range(1, count + 1):
        yield [(7 * length + 3 * i) % VOCAB for i in range(1 + 5 * length % 40)]


def test_greedy_says_what_the_definition_says() -> None:
    sequence = [1, 2, 3]
    for _ in range(10):
        sequence.append(int(np.argmax(babble(sequence))))
    assert plainly("greedy", [1, 2, 3]) == sequence[3:]


def plainly(kind: str, prompt: Sequence[int]) -> Said:
    """What is said if it does not matter how tokens come."""
    desk = Desk(program=ScriptedProgram(babble))
    desk.submit(kind, prompt)
    desk.drain()
    return desk.tasks[0][-1]


def test_guessing_ahead_changes_no_token() -> None:
    for prompt in prompts(6):
        assert plainly("guess", prompt)[:10] == plainly("greedy", prompt)


def test_beam_finds_what_a_search_without_a_cache_finds() -> None:
    for prompt in prompts(4):
        beams: list[tuple[float, list[int]]] = [(0.0, [])]
        for _ in range(6):
            longer = [
                (total + np.float64(np.float32(logit)), [*text, token])
                for total, text in beams
                for token, logit in enumerate(babble([*prompt, *text]))
            ]
            beams = sorted(longer, key=lambda beam: -beam[0])[:3]
        assert plainly("beam", prompt) == [text for _, text in beams]


@pytest.mark.parametrize("chunk", [1, 4, 32, CHUNK])
def test_all_kinds_in_one_batch_say_what_they_say_alone(chunk: int) -> None:
    desk = Desk(chunk)
    for prompt in prompts(3):
        for kind in KINDS:
            desk.submit(kind, prompt)
    desk.drain()
    for _, kind, prompt, said in desk.tasks:
        assert said == alone(kind, prompt, chunk)


schedules = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from([*KINDS]), st.integers(1, 40), st.integers(-1, 1)),
        st.tuples(st.just("step"), st.integers(1, 4)),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
    ),
    max_size=20,
)


@settings(max_examples=100)
@given(schedules, st.sampled_from([3, 16, CHUNK]), st.none() | st.integers(190, 700), st.booleans())
def test_any_schedule(schedule: list[tuple[Any, ...]], chunk: int, most: int | None, known: bool) -> None:
    """With hardly room for one of them, or for all, and beginnings that are known, or not."""
    desk = Desk(chunk, most=most, reuse=Reuse(400) if known and chunk % BLOCK == 0 else NO_REUSE)
    cancelled: set[int] = set()
    for verb, *rest in schedule:
        if verb == "submit":
            kind, length, priority = rest
            desk.submit(kind, [(length + 3 * i) % VOCAB for i in range(length)], priority)
        elif verb == "step":
            for _ in range(rest[0]):
                desk.engine.step()
        elif rest[0] < len(desk.tasks):
            task = desk.tasks[rest[0]][0]
            if not task.done:
                cancelled.add(rest[0])
            desk.engine.cancel(task)
            assert task.done
    desk.drain()
    for place, (task, kind, prompt, said) in enumerate(desk.tasks):
        expected = alone(kind, prompt, chunk)
        assert said == (expected[: len(said)] if place in cancelled else expected)
        assert task.error is None


@pytest.mark.parametrize("company", [0, 1, 3])
def test_chunks_end_at_multiples_whatever_the_company(company: int) -> None:
    desk = Desk(chunk=20)
    for _ in range(company):
        desk.submit("greedy", [5])
        desk.engine.step()
    desk.submit("greedy", [4] * 50)
    desk.engine.step()
    desk.engine.step()
    desk.engine.step()
    long = [(batch.lengths.max() - batch.counts.max(), batch.counts.max()) for batch in desk.program.batches]
    assert [run for run in long if run[1] > 1] == [(0, 20), (20, 20), (40, 10)]


def test_chunks_end_at_multiples_of_the_position_not_of_the_feed() -> None:
    def strategy() -> Strategy:
        yield Feed([[1] * 5])
        yield Feed([[1] * 50])

    desk = Desk(chunk=20)
    desk.engine.submit(strategy())
    desk.drain()
    assert [int(batch.lengths[0]) for batch in desk.program.batches] == [5, 20, 40, 55]


@pytest.mark.parametrize("kind", ["greedy", "beam", "guess"])
def test_who_is_driven_out_says_what_it_would_have_said(kind: str) -> None:
    """One takes so much room that others leave, in the middle of their answers; then they come back."""
    desk = Desk(chunk=16, most=220)
    for prompt in ([1] * 20, [2, 3]):
        desk.submit(kind, prompt)
    for _ in range(5):
        desk.engine.step()
    held = [task for task, *_ in desk.tasks if task.rows]
    desk.submit("beam", [3] * 30, priority=-1)
    driven_out = set()
    while desk.engine.step():
        driven_out |= {task for task in held if not task.done and not task.rows}
    assert driven_out
    for _, kind, prompt, said in desk.tasks:
        assert said == alone(kind, prompt, chunk=16)


def test_what_never_fits_is_refused() -> None:
    desk = Desk(most=100)
    task = desk.engine.submit(feed_once(Feed([[1] * 30] * 3), []))
    fault = "3 rows of 46 positions: the cache is limited to 400 bytes, which are 100 positions"
    assert str(task.error).startswith(fault)
    task = desk.submit("beam", [1] * 14)  # a row of it fits
    desk.submit("greedy", [2])
    desk.drain()
    assert isinstance(task.error, RequestError)
    assert "3 rows of 34 positions" in str(task.error)
    assert desk.tasks[1][-1] == alone("greedy", [2])


def test_a_running_answer_gets_a_token_in_every_step_which_has_one_long_piece_at_most() -> None:
    desk = Desk(chunk=20)
    desk.submit("greedy", [5])
    said = desk.tasks[0][-1]
    desk.engine.step()
    for _ in range(3):
        desk.submit("score", [4] * 58)
    for step in range(2, 10):
        before = len(desk.program.batches)
        desk.engine.step()
        assert len(said) == step
        assert [batch.counts.max() > 16 for batch in desk.program.batches[before:]] == [False, True]


def test_an_urgent_prompt_goes_first() -> None:
    desk = Desk(chunk=20)
    desk.submit("greedy", [1] * 60)
    desk.engine.step()
    desk.submit("greedy", [2] * 60)
    desk.submit("greedy", [3] * 60, priority=-1)
    desk.drain()
    long = [int(batch.ids[0, 0]) // 2 for batch in desk.program.batches if batch.counts.max() > 1]
    assert long == [1, 3, 3, 3, 1, 1, 2, 2, 2]


def test_a_task_that_ends_delays_nobody() -> None:
    desk = Desk()
    desk.submit("score", [1])
    for _ in range(2):
        desk.submit("greedy", [1])
    desk.drain()
    assert [len(batch.ids) for batch in desk.program.batches] == [3] + [2] * 10


def feed_once(feed: Feed, received: list[Any]) -> Strategy:
    received += yield feed


@pytest.mark.parametrize("chunk", [1, 3, 4, 5, 20])
@pytest.mark.parametrize("wanted", [0, 1, 2, 4, 5, 10, 11, 1000])
def test_wanted_reaches_over_chunks(wanted: int, chunk: int) -> None:
    tokens, received = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3], []
    engine = Engine(Model(scripted_manifest(VOCAB), ScriptedProgram(babble)), chunk)
    engine.submit(feed_once(Feed([tokens, tokens[:4]], wanted=wanted), received))
    while engine.step():
        pass
    for fed, logits in zip([tokens, tokens[:4]], received, strict=True):
        expected = [babble(fed[:stop]) for stop in range(1, len(fed) + 1)]
        expected = expected[len(fed) - min(wanted, len(fed)) :]
        np.testing.assert_array_equal(logits, np.array(expected, np.float32).reshape(-1, VOCAB))


def test_logits_are_the_strategys_to_keep() -> None:
    """The next pass does not write over them."""
    kept: list[tuple[Float32, Float32]] = []

    def hoard() -> Strategy:
        for token in range(5):
            (logits,) = yield Feed([[token]])
            kept.append((logits, logits.copy()))

    desk = Desk()
    desk.engine.submit(hoard())
    desk.submit("greedy", [1])
    desk.drain()
    for logits, copy in kept:
        np.testing.assert_array_equal(logits, copy)


def test_a_task_submitted_from_within_a_step_is_as_good_as_any() -> None:
    desk = Desk()

    def parent() -> Strategy:
        yield Feed([[1]])
        desk.submit("greedy", [2, 3])
        yield Feed([[4]])

    desk.engine.submit(parent())
    desk.submit("guess", [5, 6])
    desk.drain()
    for _, kind, prompt, said in desk.tasks:
        assert said == alone(kind, prompt)


def broken(error: BaseException, after: int, rows: int = 2) -> Strategy:
    for _ in range(after):
        yield Feed([[1]] * rows)
    raise error


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("error", [RequestError("no"), ZeroDivisionError("a defect")])
def test_an_error_ends_its_own_task_alone(error: Exception, after: int) -> None:
    desk = Desk()
    desk.submit("beam", [1, 2])
    task = desk.engine.submit(broken(error, after))
    desk.submit("greedy", [3])
    desk.drain()
    assert (task.done, task.error) == (True, error)
    for _, kind, prompt, said in desk.tasks:
        assert said == alone(kind, prompt)


@pytest.mark.parametrize(
    ("second", "fault"),
    [
        (Feed([[1]]), "tokens for 1 rows, but there are 2"),
        (Feed([[1], [2], [3]]), "tokens for 3 rows, but there are 2"),
        (Feed([[1]], keep=[(0, 1), (1, 1)]), "tokens for 1 rows, but there are 2"),
        (Feed([[1]], keep=[(2, 1)]), "1 positions of row 2"),
        (Feed([[1]], keep=[(0, 3)]), "3 positions of row 0"),
    ],
)
def test_a_feed_that_makes_no_sense_ends_its_own_task_alone(second: Feed, fault: str) -> None:
    closed = []

    def confused() -> Strategy:
        try:
            yield Feed([[1, 2], [3]])
            yield second
        finally:
            closed.append(True)

    desk = Desk()
    desk.submit("beam", [1, 2])
    task = desk.engine.submit(confused())
    desk.submit("greedy", [3])
    desk.drain()
    assert isinstance(task.error, ValueError)
    assert fault in str(task.error)
    assert closed
    for _, kind, prompt, said in desk.tasks:
        assert said == alone(kind, prompt)


def test_outgrowing_the_context_ends_its_own_task_alone() -> None:
    desk = Desk()
    desk.submit("greedy", [3])
    at_once = desk.engine.submit(feed_once(Feed([[1] * (CONTEXT + 1)]), []))
    assert isinstance(at_once.error, RequestError)

    def grow() -> Strategy:
        while True:
            yield Feed([[1] * 20])

    later = desk.engine.submit(grow())
    desk.drain()
    assert str(later.error) == f"80 positions and 20 more: the model holds {CONTEXT}"
    assert desk.tasks[0][-1] == alone("greedy", [3])


class Stumbling(ScriptedProgram):
    """Raises once, after `passes` forward passes, when it has written into the cache."""

    def __init__(self, error: BaseException, passes: int) -> None:
        super().__init__(babble)
        self.error: BaseException | None = error
        self.passes = passes

    def run(self, batch: Batch, view: CacheView) -> Float32:
        logits = super().run(batch, view)
        if len(self.batches) > self.passes and self.error is not None:
            error, self.error = self.error, None
            raise error
        return logits


@pytest.mark.parametrize("passes", range(12))
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("kernel")])
def test_a_step_that_fails_can_be_taken_again(error: BaseException, passes: int) -> None:
    """Some rows of the step were in passes that went well; they are not fed twice."""
    desk = Desk(chunk=20, program=Stumbling(error, passes))
    for kind, length in (("greedy", 1), ("guess", 30), ("beam", 17), ("score", 45), ("ragged", 3)):
        desk.submit(kind, [2] * length)
    with pytest.raises(type(error)):
        desk.drain()
    desk.drain()
    for _, kind, prompt, said in desk.tasks:
        assert said == plainly(kind, prompt)


def test_an_interrupt_within_a_strategy_comes_out_and_ends_it() -> None:
    desk = Desk()
    desk.submit("greedy", [1])
    task = desk.engine.submit(broken(KeyboardInterrupt(), after=2))
    desk.submit("greedy", [2])
    with pytest.raises(KeyboardInterrupt):
        desk.drain()
    assert (task.done, type(task.error)) == (True, KeyboardInterrupt)
    desk.drain()
    for _, kind, prompt, said in desk.tasks:
        assert said == alone(kind, prompt)


def test_cancelling_closes_the_strategy_and_is_harmless_twice() -> None:
    closed = []

    def strategy() -> Strategy:
        try:
            yield Feed([[1] * 40])
        finally:
            closed.append(True)

    desk = Desk(chunk=8)
    task = desk.engine.submit(strategy())
    desk.engine.step()
    assert len(desk.model.arena) == 1
    desk.engine.cancel(task)
    desk.engine.cancel(task)
    assert closed == [True]
    assert len(desk.model.arena) == 0
    assert desk.engine.step() is False


def test_cancelling_in_the_middle_of_a_pass_waits_for_its_end() -> None:
    """As a garbage collector may, when it finds an abandoned stream."""

    class Collecting(ScriptedProgram):
        def run(self, batch: Batch, view: CacheView) -> Float32:
            if len(self.batches) == 3:
                desk.engine.cancel(desk.tasks[0][0])
                assert len(desk.model.arena) == 5
            return super().run(batch, view)

    desk = Desk(program=Collecting(babble))
    desk.submit("greedy", [1])
    desk.submit("beam", [2, 3])
    desk.submit("greedy", [4])
    desk.drain()
    assert len(desk.tasks[0][-1]) < 10
    for _, kind, prompt, said in desk.tasks[1:]:
        assert said == plainly(kind, prompt)


def test_a_strategy_that_feeds_nothing_is_asked_again() -> None:
    turns = []

    def idle() -> Strategy:
        turns.append((yield Feed([])))
        turns.append((yield Feed([])))
        (logits,) = yield Feed([[]])
        turns.append(logits.shape)

    desk = Desk()
    task = desk.engine.submit(idle())
    desk.drain()
    assert task.error is None
    assert turns == [[], [], (0, VOCAB)]


def test_steps_without_tasks_do_nothing() -> None:
    desk = Desk()
    assert desk.engine.step() is False
    assert desk.program.batches == []
