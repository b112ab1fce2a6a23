"""The engine: gathers what all live strategies want to feed, runs it at once, hands the logits back.

It knows no algorithm, no text and no stopping rule. Who is fed when is the scheduler's to say. Prompts are
fed in pieces that end at multiples of `chunk` positions, whatever else is going on, so that a prompt's
numbers do not depend on its company; and who has to leave the cache for want of memory is computed again as
it was before.
"""

from collections import deque
from collections.abc import Sequence
from itertools import count
from threading import Lock
from weakref import WeakKeyDictionary

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.model import BATCHED_TOKENS, Model
from sardonyx.runtime.scheduler import Limits, Plan, Want, place_in_line, plan
from sardonyx.runtime.strategies import Strategy
from sardonyx.runtime.task import Fed, Place, Task

CHUNK = 128
"""Positions; about the longest that a running answer, a cancellation or an urgent request waits for a prompt.
Longer chunks are not faster: from 64 tokens on the machine is busy.
"""

RESERVE = 32
"""Positions to spare in each row beside which a request is let into a cache of limited size."""


class Engine:
    """Runs strategies side by side on one model. Any thread may submit, cancel and step; steps take turns.

    `exact` makes what a row gets independent of how its tokens came to be fed: a token that comes alone would
    take another kernel than the same token in a prompt, or among guesses, and come out with other last bits.
    So it goes together with the one before it.
    """

    def __init__(self, model: Model, chunk: int = CHUNK, exact: bool = False) -> None:
        self._model = model
        self._chunk = chunk
        self._exact = exact
        self._arrivals = count()
        self._tasks: list[Task] = []
        self._closed = False
        self._coming: deque[Task] = deque()
        self._leaving: deque[Task] = deque()
        self._guests: WeakKeyDictionary[Model, Model] = WeakKeyDictionary()
        self._lock = Lock()
        """Held by who steps. Nobody else waits for it: a garbage collector may cancel anywhere."""

    def submit(
        self,
        strategy: Strategy,
        *others: Model,
        priority: int = 0,
        fresh: bool = False,
        adapters: Sequence[int] = (),
    ) -> Task:
        """Take a strategy in; its first tokens are fed by one of the next steps, sooner if its `priority` is
        lower. `others` are the models that it feeds as its 1, 2, ...: there is a cache of its own for each.
        If `fresh`, all is computed, nothing taken from the prefix cache or left there. `adapters` says which
        one the strategy has of each of its models, if any.
        """
        if self._closed:
            raise RequestError("this model has been closed, and answers no more")
        models = [self._model, *map(self._guest, others)]
        numbers = [*adapters, *[0] * (len(models) - len(adapters))]
        places = [
            Place(model, self._chunk_of(model), None if fresh else model.prefixes, number)
            for model, number in zip(models, numbers, strict=True)
        ]
        task = Task(strategy, places, place_in_line(next(self._arrivals), priority))
        _advance(task)
        if not task.done:
            self._coming.append(task)
        return task

    def cancel(self, task: Task) -> None:
        """Drop a task and its rows, in the middle of its prompt too. If a step is being taken, at its end.
        Harmless when it is done.
        """
        if not task.done:
            self._leaving.append(task)
            self._tidy()

    def close(self) -> None:
        """Cancel all, and take nothing more in."""
        self._closed = True
        for task in [*self._coming, *self._tasks]:
            self.cancel(task)

    def step(self) -> bool:
        """Feed live tasks their next tokens. False when none is left alive.

        What a strategy raises ends that strategy alone, and is its task's `error`. What the model raises, or
        an interrupt, is raised here; then that model has been fed nothing, and the step may be taken again.
        """
        try:
            with self._lock:
                self._take_step()
        finally:
            self._tidy()
        return bool(self._tasks or self._coming)

    def _take_step(self) -> None:
        while self._coming:
            self._tasks.append(self._coming.popleft())
        if self._closed:
            self._leaving.extend(self._tasks)
        self._dismiss()
        try:
            self._feed()
            for task in self._tasks:
                if not task.waiting():
                    _advance(task)
        finally:
            self._dismiss()

    def _feed(self) -> None:
        """Run what the scheduler says."""
        waiting = [task.waiting() for task in self._tasks]
        steps = self._plan(waiting)
        for index in steps.leave:
            for place in self._tasks[index].places:
                place.give_up()
        for index in steps.feed:
            for place in self._tasks[index].places:
                place.arrange()
        fed = [waiting[index][piece] for index, pieces in steps.feed.items() for piece in pieces]
        for one in fed:
            one.skip_known()
        for model in dict.fromkeys(one.place.model for one in fed):
            pieces = [one.piece(self._exact) for one in fed if one.place.model is model]
            for piece, output in zip(pieces, model.outputs([p.step for p in pieces]), strict=True):
                piece.fed.take(piece, output)

    def _plan(self, waiting: Sequence[Sequence[Fed]]) -> Plan:
        rooms = [task.rooms() for task in self._tasks]
        models = list(dict.fromkeys(model for room in rooms for model in room))
        wants = [
            Want(
                task.line,
                {models.index(model): room for model, room in taken.items()},
                any(place.rows for place in task.places),
                [fed.stop() - fed.place.length(fed.index) for fed in feeds],
            )
            for task, taken, feeds in zip(self._tasks, rooms, waiting, strict=True)
        ]
        most = [model.arena.most or 0 for model in models]
        return plan(wants, Limits(self._chunk, BATCHED_TOKENS, most, RESERVE))

    def _guest(self, other: Model) -> Model:
        """Another model, with a cache that is this engine's own."""
        if other is self._model:
            return other
        return self._guests.get(other) or self._guests.setdefault(other, other.twin())

    def _chunk_of(self, model: Model) -> int:
        """The chunk, halved until a model computes any part of it as it computes the whole."""
        chunk = self._chunk
        while chunk > model.program.longest_run:
            chunk //= 2
        return chunk

    def _tidy(self) -> None:
        """Let go who was cancelled, unless a step is being taken: then its end will."""
        while self._leaving and self._lock.acquire(blocking=False):
            try:
                self._dismiss()
            finally:
                self._lock.release()

    def _dismiss(self) -> None:
        while self._leaving:
            self._leaving.popleft().end()
        self._tasks = [task for task in self._tasks if not task.done]


def _advance(task: Task) -> None:
    try:
        task.advance()
    finally:
        if task.done:
            task.end()
