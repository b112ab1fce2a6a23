"""The scheduler's promises, whatever requests there are: limits hold, nobody starves, pieces stay whole."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sardonyx.runtime.scheduler import HEAD_START, Limits, Plan, Room, Want, place_in_line, plan

SHORT = 16
MOST = 4000

rooms = st.builds(Room, st.integers(1, 4), st.integers(1, MOST // 4))
wants = st.lists(
    st.builds(
        Want,
        st.integers(-100, 100),
        st.dictionaries(st.integers(0, 1), rooms),
        st.booleans(),
        st.lists(st.integers(1, 300), max_size=4),
    ),
    max_size=8,
)
limits = st.builds(
    Limits,
    st.integers(1, 600),
    st.just(SHORT),
    st.tuples(st.integers(MOST, 3 * MOST), st.integers(MOST, 3 * MOST)),
    st.integers(0, 100),
)


def together(wants: list[Want], indices: Iterable[int], cache: int) -> Room:
    total = Room(0, 0)
    for index in indices:
        total = total.beside(wants[index].rooms.get(cache, Room(0, 0)))
    return total


@given(wants, limits)
def test_what_is_in_the_cache_is_within_its_limits(wants: list[Want], limits: Limits) -> None:
    made = plan(wants, limits)
    for cache, most in enumerate(limits.positions):
        assert together(wants, list(made.feed), cache).fits(most)


@given(wants, limits)
def test_who_is_inside_is_fed_or_leaves(wants: list[Want], limits: Limits) -> None:
    made = plan(wants, limits)
    inside = {index for index, want in enumerate(wants) if want.inside}
    assert set(made.leave) == inside - made.feed.keys()
    assert len(made.leave) == len(set(made.leave))


@given(wants, limits)
def test_nobody_gives_way_to_one_behind(wants: list[Want], limits: Limits) -> None:
    """Who leaves, or stays outside, does not fit beside those before it in line."""
    made = plan(wants, limits)
    for index in set(range(len(wants))) - made.feed.keys():
        before = [other for other in made.feed if wants[other].place <= wants[index].place]
        spare = 0 if wants[index].inside else limits.reserve
        assert not all(
            together(wants, [*before, index], cache).fits(limits.positions[cache], spare)
            for cache in wants[index].rooms
        )


@given(wants, limits)
def test_the_first_in_line_always_runs(wants: list[Want], limits: Limits) -> None:
    made = plan(wants, limits)
    if wants:
        first = min(range(len(wants)), key=lambda index: wants[index].place)
        assert next(iter(made.feed)) == first
        if wants[first].pieces:
            assert made.feed[first]


@given(wants, limits)
def test_short_pieces_always_run_and_long_ones_within_the_budget(wants: list[Want], limits: Limits) -> None:
    made = plan(wants, limits)
    fed = [(index, piece) for index, pieces in made.feed.items() for piece in pieces]
    assert len(fed) == len(set(fed))
    long = [wants[index].pieces[piece] for index, piece in fed if wants[index].pieces[piece] > SHORT]
    assert len(long) <= 1 or sum(long) <= limits.tokens
    for index in made.feed:
        for piece, tokens in enumerate(wants[index].pieces):
            if (index, piece) not in fed:
                assert tokens > SHORT
                assert long, "a long piece waits, and none runs"
                assert sum(long) + tokens > limits.tokens


def test_pieces_run_in_the_order_of_the_line() -> None:
    asked = [
        Want(2, {0: Room(2, 200)}, True, [100, 100]),
        Want(1, {0: Room(1, 500)}, True, [128]),
        Want(0, {0: Room(1, 90)}, True, [1]),
        Want(3, {0: Room(1, 90)}, False, [1]),
    ]
    made = plan(asked, Limits(256, SHORT, [MOST], 10))
    assert made == Plan({2: [0], 1: [0], 0: [0], 3: [0]}, [])
    assert plan(asked, Limits(64, SHORT, [MOST], 10)).feed == {2: [0], 1: [0], 0: [], 3: [0]}


def test_a_long_request_takes_the_room_of_all_rows() -> None:
    """Rows are as long as the longest: three of 100 are 300 positions, and one of 200 beside them is 800."""
    short = [Want(place, {0: Room(1, 100)}, True, [1]) for place in range(3)]
    long = Want(3, {0: Room(1, 200)}, False, [200])
    assert list(plan([*short, long], Limits(512, SHORT, [800], 0)).feed) == [0, 1, 2, 3]
    assert list(plan([*short, long], Limits(512, SHORT, [799], 0)).feed) == [0, 1, 2]
    assert list(plan([*short, long], Limits(512, SHORT, [800], 1)).feed) == [0, 1, 2]


def test_an_urgent_request_drives_out_a_patient_one() -> None:
    asked = [
        Want(place_in_line(0, 0), {0: Room(1, 100)}, True, [1]),
        Want(place_in_line(1, -1), {0: Room(1, 100)}, False, [100]),
    ]
    assert plan(asked, Limits(512, SHORT, [150], 0)) == Plan({1: [0]}, [0])


@pytest.mark.parametrize("levels", [1, 3])
def test_how_many_overtake_is_bounded(levels: int) -> None:
    patient = place_in_line(0, levels)
    overtaking = [arrival for arrival in range(1, 1000) if place_in_line(arrival, 0) < patient]
    assert len(overtaking) == levels * HEAD_START - 1


@dataclass
class Client:
    """A request whose rows have so many tokens to be fed, then say so many, one at a time."""

    place: int
    prompt: int
    answer: int
    rows: int
    said: int = 0
    fed: list[int] = field(default_factory=list)

    def left(self) -> list[tuple[int, int]]:
        """Rows that wait for tokens, and how many in one piece."""
        text = self.prompt + self.said
        fed = self.fed or [0] * self.rows
        return [(row, min(text - n, CHUNK - n % CHUNK)) for row, n in enumerate(fed) if n < text]

    def want(self) -> Want:
        room = Room(self.rows, self.prompt + self.said + SHORT)
        return Want(self.place, {0: room}, bool(self.fed), [piece for _, piece in self.left()])

    def take(self, pieces: Sequence[int]) -> None:
        left = self.left()
        self.fed = self.fed or [0] * self.rows
        for piece in pieces:
            row, tokens = left[piece]
            self.fed[row] += tokens
        self.said += not self.left()


CHUNK = 64
clients = st.builds(Client, st.integers(0, 20), st.integers(1, 300), st.integers(1, 30), st.integers(1, 2))


@given(st.lists(clients, min_size=1, max_size=8), st.integers(2 * (300 + 30 + SHORT), 3000))
def test_everybody_gets_there(clients: list[Client], most: int) -> None:
    """Driven out and let in again, all end: with a limit that holds any one of them, if hardly more."""
    live, steps = clients, 0
    work = sum(client.rows * (client.prompt + client.answer) for client in clients)
    while live:
        made = plan([client.want() for client in live], Limits(CHUNK, SHORT, [most], 8))
        for index in made.leave:
            live[index].fed = []
        for index, pieces in made.feed.items():
            live[index].take(pieces)
        live = [client for client in live if client.said < client.answer]
        steps += 1
        assert steps <= len(clients) * work
