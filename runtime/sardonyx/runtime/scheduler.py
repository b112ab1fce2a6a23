"""The scheduler: which requests a step feeds, with how many tokens, and which have to leave the cache.

Integers only: it knows no tokens, no models and no clock, and keeps nothing from one step to the next.

Who is in the cache is decided in the order of the line, so a request that comes early or is urgent takes the
room of one that comes late. The first in line always runs, so everybody gets there. Tokens come in pieces
that are fed whole or not at all: where a prompt is cut must not depend on who else is there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEAD_START = 32
"""A level of priority is worth as many places in the line. So nobody is overtaken for ever."""


def place_in_line(arrival: int, priority: int) -> int:
    """Lower goes first. As elsewhere, a lower `priority` is more urgent; `arrival` counts requests."""
    return arrival + HEAD_START * priority


@dataclass(frozen=True)
class Room:
    """Of one cache: rows, all with room for as many positions as the longest needs."""

    rows: int
    positions: int

    def beside(self, other: "Room") -> "Room":
        """Both in one cache."""
        return Room(self.rows + other.rows, max(self.positions, other.positions))

    def fits(self, most: int, reserve: int = 0) -> bool:
        """Whether it is within `most` positions of all rows together, with some to spare in each."""
        return self.rows * (self.positions + reserve) <= most


@dataclass(frozen=True)
class Want:
    """One request: where it stands in line, what it needs of each cache that is limited, by number, when it
    has been fed all that it asks for, whether it is in any cache already, and the pieces, in tokens, that are
    next, one for each of its rows that has any.
    """

    place: int
    rooms: Mapping[int, Room]
    inside: bool
    pieces: Sequence[int]


@dataclass(frozen=True)
class Limits:
    """`positions` of all rows together that each limited cache may have, by number. Who comes in beside
    others must leave `reserve` to spare in each row, or the next tokens would drive it out again.

    Pieces of up to `short` tokens share a pass and always run: a running answer never waits. Of longer ones
    there are `tokens` in a step, or one piece if that is more.
    """

    tokens: int
    short: int
    positions: Sequence[int]
    reserve: int


@dataclass(frozen=True)
class Plan:
    """`feed`: request by request, first in line first, which of its pieces. `leave`: who is to make room."""

    feed: Mapping[int, Sequence[int]]
    leave: Sequence[int]


def plan(wants: Sequence[Want], limits: Limits) -> Plan:
    """One step. Requests and their pieces are spoken of by their index.

    Whoever is alone must fit into the limits: see `Room.fits`.
    """
    line = _admitted(wants, limits)
    feed: dict[int, list[int]] = {}
    left = limits.tokens
    for index in line:
        feed[index] = []
        for piece, tokens in enumerate(wants[index].pieces):
            if tokens > limits.short:
                if tokens > left < limits.tokens:
                    continue
                left -= tokens
            feed[index].append(piece)
    return Plan(feed, [index for index, want in enumerate(wants) if want.inside and index not in feed])


def _admitted(wants: Sequence[Want], limits: Limits) -> list[int]:
    """Who may be in the cache, first in line first."""
    line: list[int] = []
    taken = dict.fromkeys(range(len(limits.positions)), Room(0, 0))
    for index in sorted(range(len(wants)), key=lambda index: wants[index].place):
        want = wants[index]
        reserve = limits.reserve if line and not want.inside else 0
        grown = {cache: taken[cache].beside(room) for cache, room in want.rooms.items()}
        if all(room.fits(limits.positions[cache], reserve) for cache, room in grown.items()):
            taken |= grown
            line.append(index)
    return line
