"""The engine: gathers what all live strategies want to feed, runs it at once, hands the logits back.

It knows no algorithm, no text and no stopping rule. Prompts are fed in chunks that end at multiples of
`chunk` positions, whatever else is going on, so that a prompt's numbers do not depend on its company.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sardonyx.runtime.backends.base import Float32
from sardonyx.runtime.cache import Row
from sardonyx.runtime.errors import SardonyxError
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
        return Step(
            self.row,
            self.tokens[self.done : stop],
            min(count, max(0, self.wanted - (len(self.tokens) - stop))),
        )

    def take(self, step: Step, logits: Float32) -> None:
        self.done += len(step.tokens)
        self.logits.append(logits)


@dataclass(eq=False)
class Task:
    """A strategy at work. `error` holds what ended it, if not its own end."""

    strategy: Strategy
    rows: list[Row] = field(default_factory=list)
    feeds: list[_Fed] = field(default_factory=list)
    done: bool = False
    error: SardonyxError | None = None


class Engine:
    """Runs strategies side by side on one model. To be used by one thread at a time."""

    def __init__(self, model: Model, chunk: int = CHUNK) -> None:
        self._model = model
        self._chunk = chunk
        self._tasks: list[Task] = []

    def submit(self, strategy: Strategy) -> Task:
        """Take a strategy in; its first tokens are fed by the next `step`."""
        task = Task(strategy)
        self._tasks.append(task)
        self._advance(task, None)
        return task

    def cancel(self, task: Task) -> None:
        """Drop a task and its rows, in the middle of its prompt too. Harmless when it is done."""
        if not task.done:
            task.strategy.close()
            self._finish(task)

    def step(self) -> bool:
        """Feed every live task its next tokens. False when there is no live task."""
        feeds = [feed for task in self._tasks for feed in task.feeds if feed.left()]
        if not feeds:
            return False
        steps = [feed.step(self._chunk) for feed in feeds]
        for feed, step, logits in zip(feeds, steps, self._model.forward(steps), strict=True):
            feed.take(step, logits)
        for task in list(self._tasks):
            if not any(feed.left() for feed in task.feeds):
                self._advance(task, [np.concatenate(feed.logits) for feed in task.feeds])
        return True

    def _advance(self, task: Task, logits: Sequence[Float32] | None) -> None:
        """Hand logits to a strategy and prepare what it wants fed next."""
        try:
            feed = next(task.strategy) if logits is None else task.strategy.send(logits)
        except StopIteration:
            self._finish(task)
        except SardonyxError as error:
            task.error = error
            self._finish(task)
        else:
            self._arrange(task, feed)
            task.feeds = [_Fed(row, t, feed.wanted) for row, t in zip(task.rows, feed.tokens, strict=True)]

    def _arrange(self, task: Task, feed: Feed) -> None:
        """Give the task the rows that its feed starts from: new ones, or old ones kept, trimmed, forked,
        dropped.
        """
        arena = self._model.arena
        if not task.rows:
            task.rows = [arena.row() for _ in feed.tokens]
        if feed.keep is None:
            return
        old, task.rows = task.rows, []
        kept: dict[int, tuple[Row, int]] = {}
        for parent, length in feed.keep:
            if parent in kept:
                task.rows.append(arena.fork(old[parent], length))
            else:  # the first child takes its parent's row over, trimmed once all forks are made
                kept[parent] = (old[parent], length)
                task.rows.append(old[parent])
        for row, length in kept.values():
            arena.trim(row, length)
        for index, row in enumerate(old):
            if index not in kept:
                arena.release(row)

    def _finish(self, task: Task) -> None:
        task.done = True
        self._tasks.remove(task)
        for row in task.rows:
            self._model.arena.release(row)
        task.rows, task.feeds = [], []
