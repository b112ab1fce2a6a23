"""The engine: gathers what all live strategies want to feed, runs it at once, hands the logits back.

It knows no algorithm, no text and no stopping rule. Prompts are fed in chunks that end at multiples of
`chunk` positions, whatever else is going on, so that a prompt's numbers do not depend on its company.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from sardonyx.runtime.backends.base import Float32
from sardonyx.runtime.cache import Row
from sardonyx.runtime.model import Model, Step
from sardonyx.runtime.strategies import Feed, Strategy

CHUNK = 512
"""Positions; a chunk is also the longest that a cancellation or another request waits."""


@dataclass(eq=False)
class _Fed:
    """One row's tokens on their way into the cache, and the logits that came back so far."""

    row: Row
    tokens: Sequence[int]
    wanted: int
    done: int = 0
    logits: list[Float32] = field(default_factory=list)

    def left(self) -> int:
        return len(self.tokens) - self.done

    def step(self, chunk: int) -> Step:
        """The next tokens, up to the end of the chunk that the row's length falls into."""
        count = min(self.left(), chunk - self.row.length % chunk)
        stop = self.done + count
        wanted = min(count, max(0, self.wanted - (len(self.tokens) - stop)))
        return Step(self.row, self.tokens[self.done : stop], wanted)

    def take(self, step: Step, logits: Float32) -> None:
        self.done += len(step.tokens)
        self.logits.append(logits)

    def result(self, vocab: int) -> Float32:
        if len(self.logits) == 1:
            return self.logits[0]
        return np.concatenate([np.empty((0, vocab), np.float32), *self.logits])


@dataclass(eq=False)
class Task:
    """A strategy at work. `error` is what ended it, if it was neither its own end nor a cancellation."""

    strategy: Strategy
    rows: list[Row] = field(default_factory=list)
    feeds: list[_Fed] = field(default_factory=list)
    done: bool = False
    error: BaseException | None = None


class Engine:
    """Runs strategies side by side on one model. To be used by one thread at a time."""

    def __init__(self, model: Model, chunk: int = CHUNK) -> None:
        self._model = model
        self._chunk = chunk
        self._tasks: list[Task] = []
        self._leaving: list[Task] = []
        self._busy = False

    def submit(self, strategy: Strategy) -> Task:
        """Take a strategy in; its first tokens are fed by the next `step`."""
        task = Task(strategy)
        with self._undisturbed():
            self._tasks.append(task)
            self._advance(task, None)
        return task

    def cancel(self, task: Task) -> None:
        """Drop a task and its rows, in the middle of its prompt too. Harmless when it is done.

        A garbage collector may call this in the middle of a step: then the task leaves at the step's end.
        """
        self._leaving.append(task)
        with self._undisturbed():
            pass

    def step(self) -> bool:
        """Feed every live task its next tokens. False when none is left alive.

        What a strategy raises ends that strategy alone, and is its task's `error`. What the model raises, or
        an interrupt, is raised here; then nothing has been fed, and the step may be taken again.
        """
        with self._undisturbed():
            feeds = [feed for task in self._tasks for feed in task.feeds if feed.left()]
            steps = [feed.step(self._chunk) for feed in feeds]
            for feed, step, logits in zip(feeds, steps, self._model.forward(steps), strict=True):
                feed.take(step, logits)
            for task in list(self._tasks):
                if not any(feed.left() for feed in task.feeds):
                    self._advance(task, [feed.result(self._model.vocab_size) for feed in task.feeds])
        return bool(self._tasks)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Who is cancelled within the block leaves at its end."""
        if self._busy:
            yield
            return
        self._busy = True
        try:
            yield
        finally:
            while self._leaving:
                self._finish(self._leaving.pop())
            self._busy = False

    def _advance(self, task: Task, logits: Sequence[Float32] | None) -> None:
        """Hand logits to a strategy and prepare what it wants fed next."""
        try:
            feed = next(task.strategy) if logits is None else task.strategy.send(logits)
            self._arrange(task, feed)
            task.feeds = [_Fed(row, t, feed.wanted) for row, t in zip(task.rows, feed.tokens, strict=True)]
            for fed in task.feeds:
                self._model.check_room(fed.row, fed.left())
        except StopIteration:
            self._finish(task)
        except BaseException as error:  # a defect in one strategy is no reason to end the others
            task.error = error
            self._finish(task)
            if not isinstance(error, Exception):
                raise

    def _arrange(self, task: Task, feed: Feed) -> None:
        """Give the task the rows that its feed starts from: new ones, or what it keeps of those it has."""
        if feed.keep is not None:
            task.rows = self._model.arena.keep(task.rows, feed.keep)
        elif not task.rows:
            for _ in feed.tokens:
                task.rows.append(self._model.arena.row())
        if len(feed.tokens) != len(task.rows):
            raise ValueError(f"tokens for {len(feed.tokens)} rows, but there are {len(task.rows)}")

    def _finish(self, task: Task) -> None:
        if not task.done:
            task.done = True
            self._tasks.remove(task)
            for row in task.rows:
                self._model.arena.release(row)
            task.rows, task.feeds = [], []
            task.strategy.close()
