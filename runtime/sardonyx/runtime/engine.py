"""The engine: gathers what all live strategies want to feed, runs it at once, hands the logits back.

It knows no algorithm, no text and no stopping rule. Prompts are fed in chunks that end at multiples of
`chunk` positions, whatever else is going on, so that a prompt's numbers do not depend on its company.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from sardonyx.runtime.backends.base import Float32, Output
from sardonyx.runtime.cache import Row
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.model import BATCHED_TOKENS, Model, Step
from sardonyx.runtime.prefixes import PrefixCache
from sardonyx.runtime.strategies import Feed, Strategy

CHUNK = 512
"""Positions; a chunk is also the longest that a cancellation or another request waits."""


@dataclass(eq=False)
class _Fed:
    """One row's tokens on their way into the cache, and what came back so far. `text` is what it holds."""

    place: "_Place"
    row: Row
    text: list[int]
    tokens: Sequence[int]
    wanted: int
    done: int = 0
    outputs: list[Output] = field(default_factory=list)

    def left(self) -> int:
        return len(self.tokens) - self.done

    def step(self, chunk: int, exact: bool) -> Step:
        """The next tokens, up to the end of the chunk that the row's length falls into. To be exact, a token
        never goes alone: the one before it is computed once more.
        """
        count = min(self.left(), chunk - self.row.length % chunk)
        stop = self.done + count
        wanted = min(count, max(0, self.wanted - (len(self.tokens) - stop)))
        again = self.text[-1:] if exact and count == 1 else []
        return Step(self.row, [*again, *self.tokens[self.done : stop]], wanted, len(again))

    def take(self, step: Step, output: Output) -> None:
        new = step.tokens[step.again :]
        self.text += new
        self.done += len(new)
        self.outputs.append(output)
        if len(self.tokens) > BATCHED_TOKENS:  # fewer are a step of decoding, much of it guesses
            self.place.remember(self.row, self.text)

    def logits(self) -> Float32:
        return _joined([output.logits for output in self.outputs], self.place.model.vocab_size)

    def hidden(self) -> Float32:
        return _joined([output.hidden for output in self.outputs], self.place.model.hidden_size)


def _joined(parts: list[Float32], width: int) -> Float32:
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty((0, width), np.float32), *parts])


@dataclass(eq=False)
class _Place:
    """A task's rows in the cache of one model, and the tokens that they hold.

    `prefixes` is where beginnings of texts come from and are left, if they may. `reused` counts the tokens
    that came from there for the first row.
    """

    model: Model
    prefixes: PrefixCache | None
    reused: int = 0
    rows: list[Row] = field(default_factory=list)
    texts: list[list[int]] = field(default_factory=list)

    def arrange(self, feed: Feed) -> list[_Fed]:
        """Make the rows what the feed starts from: new ones, or what it keeps of those that there are."""
        if feed.keep is not None:
            self.rows = self.model.arena.keep(self.rows, feed.keep)
            self.texts = [self.texts[parent][:length] for parent, length in feed.keep]
        elif not self.rows:
            for _ in feed.tokens:
                self.rows.append(self.model.arena.row())
            self.texts = [[] for _ in feed.tokens]
        if len(feed.tokens) != len(self.rows):
            raise ValueError(f"tokens for {len(feed.tokens)} rows, but there are {len(self.rows)}")
        if feed.hidden and not self.model.hidden_size:
            raise RequestError("this artifact puts out no hidden states: export it with --hidden-states")
        for row, tokens in zip(self.rows, feed.tokens, strict=True):
            self.model.check_room(row, len(tokens))
        laid = []
        for i, tokens in enumerate(feed.tokens):
            count = self._reuse(i, tokens, feed.wanted)
            laid.append(_Fed(self, self.rows[i], self.texts[i], tokens[count:], feed.wanted))
        return laid

    def _reuse(self, i: int, tokens: Sequence[int], wanted: int) -> int:
        """Begin to feed a row with what is known already of its tokens: so many. Two are left at least, since
        one computed alone comes out with other last bits.
        """
        if self.prefixes is None:
            return 0
        count = self.prefixes.extend(self.rows[i], self.texts[i], tokens, spare=max(wanted, 2))
        self.texts[i] += tokens[:count]
        self.reused += count if i == 0 else 0
        return count

    def remember(self, row: Row, text: Sequence[int]) -> None:
        """Leave what a row holds for texts that begin alike."""
        if self.prefixes is not None:
            self.prefixes.store(row, text)

    def clear(self) -> None:
        if len(self.rows) == 1:
            self.remember(self.rows[0], self.texts[0])
        if len(self.rows) == 1:
            self.remember(self.rows[0], self.texts[0])
        for row in self.rows:
            self.model.arena.release(row)
        self.rows, self.texts = [], []


@dataclass(eq=False)
class Task:
    """A strategy at work. `error` is what ended it, if it was neither its own end nor a cancellation; at its
    own end `result` is what it returned.
    """

    strategy: Strategy
    places: list[_Place]
    feeds: list[_Fed] = field(default_factory=list)
    hidden: bool = False
    done: bool = False
    result: object = None
    error: BaseException | None = None

    @property
    def reused(self) -> int:
        """Tokens of its first row that were not computed, as they were known."""
        return self.places[0].reused

    @property
    def rows(self) -> list[Row]:
        """All its rows, whichever model's."""
        return [row for place in self.places for row in place.rows]


class Engine:
    """Runs strategies side by side on one model. To be used by one thread at a time.

    `exact` makes what a row gets independent of how its tokens came to be fed: a token that comes alone would
    take another kernel than the same token in a prompt, or among guesses, and come out with other last bits.
    So it goes together with the one before it.
    """

    def __init__(self, model: Model, chunk: int = CHUNK, exact: bool = False) -> None:
        self._model = model
        self._chunk = chunk
        self._exact = exact
        self._tasks: list[Task] = []
        self._leaving: list[Task] = []
        self._busy = False

    def submit(self, strategy: Strategy, *others: Model, fresh: bool = False) -> Task:
        """Take a strategy in; its first tokens are fed by the next `step`. `others` are the models that it
        feeds as its 1, 2, ...; no other engine may be at work on them. If `fresh`, all is computed, nothing
        taken from the prefix cache or left there.
        """
        models = (self._model, *others)
        task = Task(strategy, [_Place(model, None if fresh else model.prefixes) for model in models])
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
        an interrupt, is raised here; then that model has been fed nothing, and the step may be taken again.
        """
        with self._undisturbed():
            feeds = [fed for task in self._tasks for fed in task.feeds if fed.left()]
            for model in dict.fromkeys(fed.place.model for fed in feeds):
                theirs = [fed for fed in feeds if fed.place.model is model]
                steps = [fed.step(self._chunk, self._exact) for fed in theirs]
                for fed, step, output in zip(theirs, steps, model.outputs(steps), strict=True):
                    fed.take(step, output)
            for task in list(self._tasks):
                if not any(fed.left() for fed in task.feeds):
                    hidden = [fed.hidden() for fed in task.feeds] if task.hidden else []
                    self._advance(task, [*(fed.logits() for fed in task.feeds), *hidden])
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
            task.feeds = task.places[feed.model].arrange(feed)
            task.hidden = feed.hidden
        except StopIteration as end:
            task.result = end.value
            self._finish(task)
        except BaseException as error:  # a defect in one strategy is no reason to end the others
            task.error = error
            self._finish(task)
            if not isinstance(error, Exception):
                raise

    def _finish(self, task: Task) -> None:
        if not task.done:
            task.done = True
            self._tasks.remove(task)
            for place in task.places:
                place.clear()
            task.feeds = []
            task.strategy.close()
