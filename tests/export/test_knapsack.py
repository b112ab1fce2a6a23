"""The knapsack, held against trying everything."""

from itertools import chain, combinations

from hypothesis import given
from hypothesis import strategies as st

from sardonyx.export.knapsack import Knapsack

THINGS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=7)


def subsets(things: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Price and gain of each."""
    chosen = chain.from_iterable(combinations(things, count) for count in range(len(things) + 1))
    return [(sum(price for price, _ in some), sum(gain for _, gain in some)) for some in chosen]


@given(THINGS, st.integers(0, 300))
def test_nothing_within_a_price_gains_more(things: list[tuple[int, int]], price: int) -> None:
    bought = Knapsack(*zip(*things, strict=True)).within(price)
    assert sum(things[place][0] for place in bought) <= price
    best = max(gain for paid, gain in subsets(things) if paid <= price)
    assert sum(things[place][1] for place in bought) == best


@given(THINGS, st.integers(0, 300))
def test_nothing_cheaper_gains_as_much(things: list[tuple[int, int]], gain: int) -> None:
    bought = Knapsack(*zip(*things, strict=True)).gaining(gain)
    if bought is None:
        assert sum(own for _, own in things) < gain
    else:
        assert sum(things[place][1] for place in bought) >= gain
        least = min(paid for paid, own in subsets(things) if own >= gain)
        assert sum(things[place][0] for place in bought) == least


def test_large_prices_are_cut_into_units() -> None:
    knapsack = Knapsack([7 * 10**8 + 1, 7 * 10**8, 10**9], [3.0, 3.0, 4.0])
    assert knapsack.within(14 * 10**8 + 10**6) == {0, 1}
    assert knapsack.within(10**9 + 10**6) == {2}
    assert knapsack.gaining(7.5) == {0, 1, 2}
    assert knapsack.within(-1) == frozenset()


def test_nothing_to_buy() -> None:
    assert Knapsack([], []).within(5) == frozenset()
    assert Knapsack([], []).gaining(0.0) == frozenset()
    assert Knapsack([], []).gaining(1.0) is None
