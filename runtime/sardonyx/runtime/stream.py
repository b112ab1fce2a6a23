"""Answers on their way: the handle by which a caller takes them, or leaves them. Knows no model."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from weakref import finalize

from sardonyx.runtime.answer import Completion, TextAnswer
from sardonyx.runtime.engine import Engine
from sardonyx.runtime.task import Task


class Stream:
    """Answers on their way: iterate for pieces of text of the first. Leaving it unfinished, or dropping it,
    cancels it.
    """

    def __init__(self, engine: Engine, task: Task, answers: Sequence[TextAnswer]) -> None:
        self._engine = engine
        self._task = task
        self._answers = answers
        finalize(self, engine.cancel, task).atexit = False

    def __iter__(self) -> Iterator[str]:
        try:
            while True:
                if text := self._answers[0].fresh_text():  # perhaps of a step that another stream took
                    yield text
                elif self._task.done:
                    break
                else:
                    self._engine.step()
        finally:
            self.cancel()
        if self._task.error is not None:
            raise self._task.error

    def cancel(self) -> None:
        """Stop here. The completion keeps what has come; harmless when the answer is complete."""
        if not self._task.done:
            self._engine.cancel(self._task)
            for answer in self._answers:
                answer.finish("cancelled")

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
