"""Answers on their way: the handle by which a caller takes them, or leaves them. Knows no model."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any
from weakref import finalize

from sardonyx.runtime.answer import Completion, TextAnswer
from sardonyx.runtime.driver import Driver
from sardonyx.runtime.engine import Engine
from sardonyx.runtime.strategies import Decoding
from sardonyx.runtime.task import Task


class Stream:
    """Answers on their way: iterate with `for` or `async for` for pieces of text of the first, or `await` it
    for the whole. Leaving it unfinished, or dropping it, cancels it.
    """

    def __init__(self, engine: Engine, driver: Driver, task: Task, answers: Sequence[TextAnswer]) -> None:
        self._driver = driver
        self._task = task
        self._answers = answers
        finalize(self, engine.cancel, task).atexit = False

    def __iter__(self) -> Iterator[str]:
        try:
            while not self._ended():
                self._driver.wait(self._has_news)
                if text := self._answers[0].fresh_text():
                    yield text
        finally:
            self.cancel()
        self._raise()

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            while not self._ended():
                await self._driver.wait_async(self._has_news)
                if text := self._answers[0].fresh_text():
                    yield text
        finally:
            self.cancel()
        self._raise()

    def __await__(self) -> Generator[Any, None, Completion]:
        return self._whole().__await__()

    async def _whole(self) -> Completion:
        try:
            await self._driver.wait_async(lambda: self._task.done)
        finally:
            self.cancel()
        self._raise()
        return self.completion

    def wait(self) -> None:
        """Wait until all answers are complete."""
        try:
            self._driver.wait(lambda: self._task.done)
        finally:
            self.cancel()
        self._raise()

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Let this and all else that was asked for go on until `ready` says so, asked after every step."""
        self._driver.wait(ready)

    def cancel(self) -> None:
        """Stop here. The completion keeps what has come; harmless when the answer is complete. If another
        thread is taking a step, that is ended first, and the answer with it: this does not wait for it.
        """
        if not self._task.done:
            self._driver.cancel(self._task)

    @property
    def completion(self) -> Completion:
        """The answer so far, or the whole one when the iteration has ended."""
        return self.completions[0]

    @property
    def completions(self) -> list[Completion]:
        """All answers. A search may have found fewer than were asked for."""
        completions = [self._with_reused(answer.completion) for answer in self._answers]
        scores = self._task.result
        if not isinstance(scores, list):
            return completions
        return [replace(one, score=score) for one, score in zip(completions, scores, strict=False)]

    def _with_reused(self, completion: Completion) -> Completion:
        return replace(completion, usage=replace(completion.usage, cached_tokens=self._task.reused))

    def _has_news(self) -> bool:
        return self._task.done or self._answers[0].has_fresh_text

    def _ended(self) -> bool:
        return self._task.done and not self._answers[0].has_fresh_text

    def _raise(self) -> None:
        if self._task.error is not None:
            raise self._task.error


def telling(decoding: Decoding[Any], answers: Sequence[TextAnswer]) -> Decoding[Any]:
    """A decoding that tells its answers when it is cancelled."""
    try:
        return (yield from decoding)
    except GeneratorExit:
        for answer in answers:
            answer.finish("cancelled")
        raise
