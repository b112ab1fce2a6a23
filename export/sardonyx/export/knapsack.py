"""What to buy for a price, or at what least price a gain can be had: the knapsack of whole things, exactly.

Dynamic programming over prices in small units. It knows numbers only.
"""

from collections.abc import Sequence
from math import gcd

import numpy as np

UNITS = 1 << 15
"""Into so many units at most the sum of all prices is cut, to which each price is rounded up."""


class Knapsack:
    """Things with a price and a gain each, none of which are below zero."""

    def __init__(self, prices: Sequence[int], gains: Sequence[float]) -> None:
        self._prices = prices
        step = gcd(*prices) or 1
        unit = step * max(1, -(-sum(prices) // (step * UNITS)))
        self._units = [-(-price // unit) for price in prices]
        self._unit = unit
        size = sum(self._units) + 1
        self._most = np.zeros(size)  # by how many units may be spent
        self._bought = np.zeros((len(prices), size), bool)
        for bought, units, gain in zip(self._bought, self._units, gains, strict=True):
            with_it = np.concatenate([np.full(units, -1.0), self._most[: size - units] + gain])
            np.greater(with_it, self._most, out=bought)
            self._most = np.where(bought, with_it, self._most)

    def within(self, price: int) -> frozenset[int]:
        """The things, by their places, that gain the most for no more than a price."""
        if price < 0:
            return frozenset()
        return self._things(min(price // self._unit, len(self._most) - 1))

    def gaining(self, gain: float) -> frozenset[int] | None:
        """The things that gain so much at the least price; None if all things together do not."""
        units = int(np.searchsorted(self._most, gain))
        return self._things(units) if units < len(self._most) else None

    def _things(self, units: int) -> frozenset[int]:
        things = set()
        for place in range(len(self._prices) - 1, -1, -1):
            if self._bought[place, units]:
                things.add(place)
                units -= self._units[place]
        return frozenset(things)
