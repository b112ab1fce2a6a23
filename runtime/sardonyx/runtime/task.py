"""A strategy at work: what it asks to be fed, its rows in the cache, and what these hold, so that they can be
given up and computed again.

It knows how tokens are cut into pieces, but not who else is there or whose turn it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sardonyx.runtime.backends.base import Float32, Output
from sardonyx.runtime.cache import Row
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.model import BATCHED_TOKENS, Model, Step
from sardonyx.runtime.prefixes import PrefixCache
from sardonyx.runtime.scheduler import Room
from sardonyx.runtime.strategies import Feed, Strategy


@dataclass(eq=False)
class Text:
    """The tokens that a row holds, or held before it was given up.

    `alone` marks those that were fed by themselves: that takes another kernel, which puts other last bits
    into the cache, so they have to be computed in the same way again.
    """

    tokens: list[int] = field(default_factory=list)
    alone: bytearray = field(default_factory=bytearray)

    def begun(self, length: int) -> "Text":
        """Another text, that begins with so many of these tokens."""
        return Text(self.tokens[:length], self.alone[:length])

    def grow(self, tokens: Sequence[int], alone: bool) -> None:
        """Add tokens that were fed."""
        self.tokens += tokens
        self.alone += bytes([alone]) * len(tokens)

    @property
    def canonical(self) -> int:
        """So many tokens come before the first that went alone."""
        first = self.alone.find(1)
        return len(self.tokens) if first < 0 else first


class Piece(NamedTuple):
    """A step for one row, which then holds `stop` positions that count."""

    fed: "Fed"
    step: Step
    stop: int


@dataclass(eq=False)
class Fed:
    """One row's tokens on their way into the cache, and what came back so far."""

    place: "Place"
    index: int
    tokens: Sequence[int]
    wanted: int
    done: int = 0
    asked: bool = False
    outputs: list[Output] = field(default_factory=list)

    @property
    def text(self) -> Text:
        return self.place.texts[self.index]

    def left(self) -> int:
        return len(self.tokens) - self.done

    def stop(self) -> int:
        """Where the next piece ends: with the chunk that the row's length falls into, at the latest."""
        text, start, chunk = self.text, self.place.length(self.index), self.place.chunk
        stop = min(len(text.tokens) + self.left(), start + chunk - start % chunk)
        if start >= len(text.tokens):
            return stop
        if text.alone[start]:  # computed again as it was before
            return start + 1
        following = text.alone.find(1, start)
        return min(stop, len(text.tokens) if following < 0 else following)

    def skip_known(self) -> None:
        """Take from the prefix cache what it has of the tokens. At least two are left, since one that goes
        alone comes out with other last bits.
        """
        row, text, prefixes = self.place.rows[self.index], self.text, self.place.prefixes
        first, self.asked = not self.asked, True
        if first and self.left() > BATCHED_TOKENS:  # the cache grows once, and not with every piece
            self.place.model.arena.reserve(len(text.tokens) + self.left() + BATCHED_TOKENS)
        if prefixes is None:
            return
        if row.length == 0 < len(text.tokens):  # it was given up; what went several at a time may be there
            prefixes.extend(row, [], text.tokens[: text.canonical], spare=0)
        elif first and row.length == len(text.tokens):
            count = prefixes.extend(row, text.tokens, self.tokens, spare=max(self.wanted, 2))
            text.grow(self.tokens[:count], alone=False)
            self.done += count
            self.place.reused += count if self.index == 0 else 0

    def piece(self, exact: bool) -> Piece:
        """The next tokens. To be exact, a token never goes alone: the one before it is computed once more."""
        row, text, stop = self.place.rows[self.index], self.text, self.stop()
        start, known = row.length, len(text.tokens)
        if start < known:
            tokens = text.tokens[start:stop]
            # one that did not go alone takes any other along, which is forgotten
            beside = tokens if stop - start == 1 and not text.alone[start] else []
            return Piece(self, Step(row, [*tokens, *beside], 0), stop)
        count = stop - start
        tokens = list(self.tokens[self.done : self.done + count])
        wanted = min(count, max(0, self.wanted - (self.left() - count)))
        again = text.tokens[-1:] if exact and count == 1 else []
        return Piece(self, Step(row, [*again, *tokens], wanted, len(again)), stop)

    def take(self, piece: Piece, output: Output) -> None:
        """Note that a piece has been fed."""
        new = piece.stop - len(self.text.tokens)
        self.place.model.arena.trim(piece.step.row, piece.stop)
        if new > 0:
            self.text.grow(self.tokens[self.done : self.done + new], alone=len(piece.step.tokens) == 1)
            self.done += new
            self.outputs.append(output)
            if len(self.tokens) > BATCHED_TOKENS:  # fewer are a step of decoding, much of it guesses
                self.place.remember(self.index)

    def logits(self) -> Float32:
        return _joined([output.logits for output in self.outputs], self.place.model.vocab_size)

    def hidden(self) -> Float32:
        return _joined([output.hidden for output in self.outputs], self.place.model.hidden_size)


def _joined(parts: list[Float32], width: int) -> Float32:
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty((0, width), np.float32), *parts])


@dataclass(eq=False)
class Place:
    """A task's rows in the cache of one model, and the texts that they hold.

    There is a row for each text, or none if they have been given up or not been taken yet. `kept` says how
    rows are to be arranged, once it is their turn, for the texts that there are. Pieces of prompts end at
    multiples of `chunk`. `prefixes` is where beginnings of texts come from and are left, if they may;
    `reused` counts the tokens that came from there for the first row.
    """

    model: Model
    chunk: int
    prefixes: PrefixCache | None
    adapter: int = 0
    reused: int = 0
    rows: list[Row] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    kept: Sequence[tuple[int, int]] | None = None

    def ask(self, feed: Feed) -> list[Fed]:
        """Make the texts what the feed starts from: empty ones, or what it keeps of those that there are.

        Raises ValueError for a feed that makes no sense, RequestError for one that can never be fed.
        """
        texts = self._begun(feed)
        if len(feed.tokens) != len(texts):
            raise ValueError(f"tokens for {len(feed.tokens)} rows, but there are {len(texts)}")
        if feed.hidden and not self.model.hidden_size:
            raise RequestError("this artifact puts out no hidden states: export it with --hidden-states")
        for text, tokens in zip(texts, feed.tokens, strict=True):
            self.model.check_room(len(text.tokens), len(tokens))
        self.texts, self.kept = texts, feed.keep
        return [Fed(self, index, tokens, feed.wanted) for index, tokens in enumerate(feed.tokens)]

    def _begun(self, feed: Feed) -> list[Text]:
        if feed.keep is None:
            return self.texts or [Text() for _ in feed.tokens]
        for index, length in feed.keep:
            if not (0 <= index < len(self.texts) and 0 <= length <= len(self.texts[index].tokens)):
                raise ValueError(f"{length} positions of row {index} are to be kept, which are not there")
        return [self.texts[index].begun(length) for index, length in feed.keep]

    def room(self, feeds: Sequence[Fed]) -> Room:
        """What it takes of the cache while it is arranged and until it is fed. Padding needs room too."""
        new = max((fed.left() for fed in feeds if fed.place is self), default=0)
        longest = max((len(text.tokens) for text in self.texts), default=0)
        padding = BATCHED_TOKENS + self.model.arena.overhead
        return Room(max(len(self.rows), len(self.texts)), longest + new + padding)

    def length(self, index: int) -> int:
        """Positions that a row will hold once it is arranged."""
        if not self.rows:
            return 0
        if self.kept is None:
            return self.rows[index].length
        parent, length = self.kept[index]
        return self.model.arena.left(self.rows[parent], length)

    def arrange(self) -> None:
        """Take rows, or make of those that there are what was asked for."""
        if self.rows and self.kept is not None:
            kept = [(parent, min(length, self.rows[parent].length)) for parent, length in self.kept]
            self.rows = self.model.arena.keep(self.rows, kept)
        self.kept = None
        while len(self.rows) < len(self.texts):
            self.rows.append(self.model.arena.row(self.adapter))

    def remember(self, index: int) -> None:
        """Leave what a row holds for texts that begin alike."""
        if self.prefixes is not None:
            self.prefixes.store(self.rows[index], self.texts[index].tokens)

    def give_up(self) -> None:
        """Leave the cache. The texts are kept, and computed again when rows are taken."""
        if len(self.rows) == 1 and self.texts:
            self.remember(0)
        for row in self.rows:
            self.model.arena.release(row)
        self.rows, self.kept = [], None


@dataclass(eq=False)
class Task:
    """A strategy at work, at its place in the line. `error` is what ended it, if it was neither its own end
    nor a cancellation; at its own end `result` is what it returned.
    """

    strategy: Strategy
    places: Sequence[Place]
    line: int
    feeds: list[Fed] | None = None
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

    def advance(self) -> None:
        """Hand the strategy the logits that have come, if any, and ask what it wants fed next.

        What it raises ends it, and is its `error`; what is no Exception, an interrupt, is raised as well.
        """
        try:
            feed = next(self.strategy) if self.feeds is None else self.strategy.send(self._given())
            self.feeds = self.places[feed.model].ask(feed)
            self.hidden = feed.hidden
            for model, room in self.rooms().items():
                model.check_fits(room.rows, room.positions)
        except StopIteration as end:
            self.result, self.done = end.value, True
        except BaseException as error:  # a defect in one strategy is no reason to end the others
            self.error, self.done = error, True
            if not isinstance(error, Exception):
                raise

    def rooms(self) -> Mapping[Model, Room]:
        """What it takes of the cache of each of its models, if that is limited."""
        rooms: dict[Model, Room] = {}
        for place in self.places:
            if place.model.arena.most is not None:
                room = place.room(self.feeds or ())
                rooms[place.model] = room.beside(rooms[place.model]) if place.model in rooms else room
        return rooms

    def waiting(self) -> list[Fed]:
        """Rows whose tokens are not all fed."""
        return [fed for fed in self.feeds or () if fed.left()]

    def end(self) -> None:
        """Leave, whether at the end or before."""
        try:
            self.strategy.close()  # which completes its answers: whoever sees that it is done may read them
        finally:
            for place in self.places:
                place.give_up()
            self.feeds = None
            self.done = True

    def _given(self) -> Sequence[Float32]:
        feeds = self.feeds or ()
        return [*(fed.logits() for fed in feeds), *(fed.hidden() for fed in feeds if self.hidden)]
