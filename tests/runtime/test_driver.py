"""Threads and coroutines at one model: each gets its own, nobody waits for ever, nothing stays behind."""

import asyncio
import gc
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sardonyx.runtime import LLM, Completion, Memory, SamplingParams
from sardonyx.runtime.backends.base import Batch, CacheView, Output
from sardonyx.runtime.backends.scripted import ScriptedProgram
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.llm import MEMORY
from sardonyx.runtime.strategies import Algorithm
from sardonyx.runtime.strategies.beam import BeamSearch
from sardonyx.runtime.strategies.ensemble import Ensemble
from sardonyx.runtime.strategies.prompt_lookup import PromptLookup
from sardonyx.runtime.strategies.sample import Sample
from sardonyx.runtime.task import Task
from scripted_llm import VOCABULARY, scripted_llm, scripted_llm_manifest
from toys import toy

PATIENCE_S = 60
ALGORITHMS: tuple[Algorithm, ...] = (
    Sample(),
    BeamSearch(num_beams=2),
    PromptLookup(prompt_lookup_num_tokens=3),
)


class Faltering(ScriptedProgram):
    """Raises in the pass of this number, if there is one; then goes on."""

    def __init__(self, fails_at: int | None = None, seed: int = 0) -> None:
        super().__init__(toy(len(VOCABULARY), seed))
        self.fails_at = fails_at

    def run(self, batch: Batch, cache: CacheView) -> Output:
        output = super().run(batch, cache)
        if len(self.batches) == self.fails_at:
            raise RuntimeError("kernel")
        return output


def toy_llm(program: ScriptedProgram | None = None, memory: Memory = MEMORY) -> LLM:
    tokenizer = scripted_llm(template=None).tokenizer
    return LLM(scripted_llm_manifest(), tokenizer, None, program or Faltering(), memory=memory)


@pytest.fixture(autouse=True)
def hasty_threads() -> Iterator[None]:
    """Threads take turns a thousand times as often, and all have gone at the end."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(interval)
    until = time.monotonic() + PATIENCE_S
    while any(thread.name == "sardonyx" for thread in threading.enumerate()):
        assert time.monotonic() < until, "the worker has not gone"
        time.sleep(0.01)


@pytest.fixture
def llm() -> Iterator[LLM]:
    llm = toy_llm()
    yield llm
    assert_idle(llm)


def assert_idle(llm: LLM) -> None:
    gc.collect()
    assert llm._engine.step() is False
    assert len(llm._model.arena) == 0
    assert not llm._driver._threads
    assert not llm._driver._coroutines
    assert llm._driver._driving.acquire(timeout=PATIENCE_S)  # a worker may be about to leave
    llm._driver._driving.release()


def request(i: int) -> tuple[str, SamplingParams, Algorithm]:
    params = SamplingParams(max_tokens=4 + i % 9, seed=i, temperature=float(i % 2), ignore_eos=True)
    return chr(97 + i % 26) * (1 + i % 23), params, ALGORITHMS[i % 3]


def alone(i: int) -> Completion:
    return toy_llm().generate(*request(i))


def in_threads(jobs: list[Callable[[], Any]]) -> list[Any]:
    """All at once. One that does not come back fails the test."""
    start = threading.Barrier(len(jobs))

    def begin(job: Callable[[], Any]) -> Any:
        start.wait(PATIENCE_S)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result(PATIENCE_S) for future in [pool.submit(begin, job) for job in jobs]]


def test_many_threads_get_each_its_own(llm: LLM) -> None:
    def work(first: int) -> list[tuple[int, ...]]:
        answers = []
        for i in range(first, 64, 16):
            stream = llm.stream(*request(i))
            text = "".join(stream)
            assert text == stream.completion.text
            answers.append(stream.completion.tokens)
        return answers

    found = in_threads([lambda first=first: work(first) for first in range(16)])
    for first, answers in enumerate(found):
        assert answers == [alone(i).tokens for i in range(first, 64, 16)]
    widest = max(len(batch.ids) for batch in llm._program.batches)
    assert widest > 4, "they were not computed together"


def test_threads_that_leave_at_any_moment_disturb_nobody(llm: LLM) -> None:
    def stay(i: int) -> bool:
        return llm.generate(*request(i)).tokens == alone(i).tokens

    def leave(i: int) -> bool:
        rng = random.Random(i)
        for turn in range(6):
            stream = llm.stream(*request(turn))
            for _ in stream:
                if rng.random() < 0.3:
                    break
            del stream
        return True

    assert all(in_threads([(lambda i=i: stay(i)) if i % 2 else (lambda i=i: leave(i)) for i in range(12)]))


def test_another_thread_may_cancel(llm: LLM) -> None:
    streams = [llm.stream(*request(i)) for i in range(8)]
    cancel = [lambda stream=stream: stream.cancel() for stream in streams[::2]]
    take = [lambda stream=stream: "".join(stream) for stream in streams]
    in_threads([*cancel, *take])
    for i, stream in enumerate(streams):
        completion = stream.completion
        if i % 2 or completion.finish_reason != "cancelled":
            assert completion.tokens == alone(i).tokens
        else:
            assert alone(i).tokens[: len(completion.tokens)] == completion.tokens


def test_scores_and_answers_side_by_side(llm: LLM) -> None:
    expected = toy_llm().score("one of ", ["these", "those"])
    jobs = [(lambda: llm.score("one of ", ["these", "those"])) for _ in range(4)]
    found = in_threads([*jobs, *(lambda i=i: llm.generate(*request(i)).tokens for i in range(4))])
    assert found == [expected] * 4 + [alone(i).tokens for i in range(4)]


def test_two_models_may_ask_each_other() -> None:
    """Each feeds the other, in a cache of its own, while the other is at work."""
    first, second = toy_llm(Faltering(seed=1)), toy_llm(Faltering(seed=2))
    params = SamplingParams(max_tokens=12, ignore_eos=True)

    def ask(llm: LLM, other: LLM, i: int) -> tuple[int, ...]:
        return llm.generate("ab" * i, params, Ensemble(models=(other,))).tokens

    pairs = [(first, second), (second, first)]
    expected = [ask(*pair, i) for i in range(1, 5) for pair in pairs]
    jobs = [lambda pair=pair, i=i: ask(*pair, i) for i in range(1, 5) for pair in pairs]
    assert in_threads(jobs) == expected
    for llm in pairs[0]:
        assert_idle(llm)


def test_a_guest_has_one_cache_whoever_asks_first() -> None:
    """A second one would take its memory again."""
    for _ in range(20):
        llm, guest = toy_llm(), toy_llm()
        twins = in_threads([lambda: llm._engine._guest(guest._model)] * 8)  # noqa: B023
        assert len({id(twin) for twin in twins}) == 1


def test_a_step_that_fails_is_the_trouble_of_who_takes_it() -> None:
    llm = toy_llm(Faltering(fails_at=9))

    def work(i: int) -> tuple[int, ...] | str:
        try:
            return llm.generate(*request(i)).tokens
        except RuntimeError as error:
            return str(error)

    found = in_threads([lambda i=i: work(i) for i in range(6)])
    assert found.count("kernel") == 1
    for i, tokens in enumerate(found):
        assert tokens in ("kernel", alone(i).tokens)
    assert_idle(llm)


# coroutines


async def text_of(llm: LLM, i: int) -> str:
    return "".join([piece async for piece in llm.stream(*request(i))])


def test_coroutines_get_each_its_own(llm: LLM) -> None:
    async def main() -> list[str]:
        return await asyncio.gather(*(text_of(llm, i) for i in range(24)))

    for _ in range(2):  # another loop is as good
        assert asyncio.run(main()) == [alone(i).text for i in range(24)]


def test_a_stream_can_be_awaited(llm: LLM) -> None:
    async def main() -> list[Completion]:
        return await asyncio.gather(*(llm.stream(*request(i)) for i in range(5)))

    for i, completion in enumerate(asyncio.run(main())):
        assert (completion.tokens, completion.finish_reason) == (alone(i).tokens, alone(i).finish_reason)


def test_coroutines_and_threads_together(llm: LLM) -> None:
    async def main() -> list[str]:
        return await asyncio.gather(*(text_of(llm, i) for i in range(6)))

    loops = [lambda: asyncio.run(main()) for _ in range(3)]
    threads = [lambda i=i: llm.generate(*request(i)).text for i in range(6)]
    found = in_threads([*loops, *threads])
    texts = [alone(i).text for i in range(6)]
    assert found == [texts] * 3 + texts


def test_the_loop_is_not_held_up(llm: LLM) -> None:
    """Others get their turns while an answer is made."""

    async def main() -> int:
        turns = 0
        whole = asyncio.ensure_future(text_of(llm, 8))
        while not whole.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(main()) > 5


@pytest.mark.parametrize("how", ["break", "cancel", "aclose", "drop"])
def test_a_consumer_that_leaves_cancels(llm: LLM, how: str) -> None:
    stream = llm.stream("ab", SamplingParams(max_tokens=200, ignore_eos=True))

    async def taken() -> None:
        async for _ in stream:
            if how == "break":
                break

    async def main() -> None:
        if how == "break":
            await taken()
        elif how == "cancel":
            task = asyncio.ensure_future(taken())
            while not stream.completion.tokens:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            pieces = aiter(stream)
            await anext(pieces)
            if how == "aclose":
                await pieces.aclose()
            del pieces

    asyncio.run(main())
    assert stream.completion.finish_reason == "cancelled"
    assert 0 < len(stream.completion.tokens) < 200


def test_a_stream_that_nobody_takes_is_cancelled_when_it_is_dropped(llm: LLM) -> None:
    async def main() -> Task:
        return llm.stream("ab")._task

    assert asyncio.run(main()).done


def test_what_a_step_raises_reaches_all_who_wait_and_no_other() -> None:
    llm = toy_llm(Faltering(fails_at=4))

    async def main() -> list[Any]:
        running = [asyncio.ensure_future(text_of(llm, i)) for i in range(4)]
        return await asyncio.gather(*running, return_exceptions=True)

    found = asyncio.run(main())
    assert all(isinstance(one, RuntimeError) or one == alone(i).text for i, one in enumerate(found))
    assert any(isinstance(one, RuntimeError) for one in found)
    assert asyncio.run(main()) == [alone(i).text for i in range(4)]
    assert_idle(llm)


def test_what_ends_one_request_reaches_its_own_consumer() -> None:
    """This one finds out on its way that it takes more memory than there is."""
    llm = toy_llm(memory=Memory(cache=4 * 130))

    async def main() -> list[Any]:
        greedy = llm.stream("x" * 20, SamplingParams(max_tokens=5), BeamSearch(num_beams=4))
        return await asyncio.gather(text_of(llm, 1), greedy, text_of(llm, 2), return_exceptions=True)

    first, fault, second = asyncio.run(main())
    assert (first, second) == (alone(1).text, alone(2).text)
    assert str(fault).startswith("4 rows of 37 positions: the cache is limited to 520 bytes")
    assert_idle(llm)


# the end


def test_a_closed_model_ends_what_is_running_and_takes_nothing_more() -> None:
    params = SamplingParams(max_tokens=240, ignore_eos=True)

    async def whole(llm: LLM) -> Completion:
        return await llm.stream("ab", params)

    with toy_llm() as llm:
        begun = llm.stream("a", params)
        jobs = [lambda: llm.generate("abc", params), lambda: asyncio.run(whole(llm))]
        pieces = iter(begun)
        next(pieces)
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(job) for job in jobs]
            while len(llm._engine._tasks) < 3:
                next(pieces)
            llm.close()
            for future in futures:
                assert future.result(PATIENCE_S).finish_reason == "cancelled"
    assert begun.completion.finish_reason == "cancelled"
    for ask in (llm.generate, llm.stream):
        with pytest.raises(RequestError, match="this model has been closed, and answers no more"):
            ask("a")
    assert_idle(llm)


SLOWLY = """
import asyncio, os, signal, sys, threading, time
from test_driver import Faltering, toy_llm
from sardonyx.runtime import SamplingParams
class Slow(Faltering):
    def run(self, *given):
        time.sleep(0.3)
        return super().run(*given)
llm = toy_llm(program=Slow())
params = SamplingParams(max_tokens=250, ignore_eos=True)
async def whole():
    return await llm.stream("ab", params)
"""

ENDINGS = {
    "a thread is left alone with its stream": """
        stream = iter(llm.stream("ab", params)); next(stream)
    """,
    "a loop is left behind": """
        loop = asyncio.new_event_loop()
        waiting = loop.create_task(whole())
        loop.run_until_complete(asyncio.sleep(0.1))
    """,
    "a loop is closed": """
        loop = asyncio.new_event_loop()
        waiting = loop.create_task(whole())
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()
    """,
    "a task is left to itself": """
        async def main():
            global task
            task = asyncio.ensure_future(whole())
            await asyncio.sleep(0.1)
        asyncio.run(main())
    """,
    "an interrupt while a coroutine waits": """
        async def main():
            asyncio.get_running_loop().call_later(0.1, signal.raise_signal, signal.SIGINT)
            await whole()
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
    """,
    "an interrupt while a thread takes steps": """
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            llm.generate("ab", params)
        except KeyboardInterrupt:
            print("interrupted", llm.generate("a", SamplingParams(max_tokens=2)).finish_reason)
    """,
    "an interrupt while another thread takes steps": """
        def work():
            try:
                llm.generate("ab", params)
            finally:
                print("and not answered")
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.1)
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            llm.generate("ab", params)
        except KeyboardInterrupt:
            print("interrupted")
            llm.close()
    """,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_process_ends(ending: str) -> None:
    """Long before an answer would."""
    done = subprocess.run(
        [sys.executable, "-c", SLOWLY + textwrap.dedent(ENDINGS[ending])],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr.replace("Task was destroyed but it is pending!", "")[:100]) == (
        0,
        "",
    )
    assert ("interrupted" in done.stdout) == ("interrupt" in ending)


def test_what_is_done_has_told_its_answers() -> None:
    """Another thread may look at any moment, in the middle of a cancellation, too."""
    seen: list[str | None] = []
    with toy_llm() as llm:
        stream = llm.stream("a", SamplingParams(max_tokens=9, ignore_eos=True))
        pieces = iter(stream)
        next(pieces)
        task, finish = stream._task, stream._answers[0].finish

        def watched(reason: Any) -> None:
            seen.append("done" if task.done else "running")
            finish(reason)

        stream._answers[0].finish = watched  # type: ignore[method-assign]
        stream.cancel()
    assert (seen, task.done) == (["running"], True)
