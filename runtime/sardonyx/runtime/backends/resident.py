"""States that stay on a device from pass to pass, and come to the arena only when somebody looks.

A pass that finds its rows on the device copies nothing. What the arena does to bytes (fork, reorder, read for
the prefix cache, grow) it does at home: it says so first, and what is newer on the device comes back. To
forget positions touches no byte, so a row that is trimmed or rewound stays where it is. It knows rows and
tensors; how a device copies is its own business.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.backends.base import CacheView
from sardonyx.runtime.manifest import State

Array = NDArray[Any]
Rows = tuple[int, int]


@dataclass(frozen=True)
class Device:
    """Memory of a provider: a tensor there, an array copied into one, and one copied into an array."""

    make: Callable[[Sequence[int], np.dtype[Any]], Any]
    put: Callable[[Array, Any], None]
    take: Callable[[Any, Array], None]


@dataclass
class _Held:
    """Rows on the device. `newer` than in the arena, once a pass has written them."""

    tensors: Sequence[Array]
    values: list[Any]
    newer: bool = False


class Resident:
    """The states of some rows of an arena, on a device. `copies` counts states that went either way."""

    def __init__(self, device: Device, states: Sequence[State]) -> None:
        self._device = device
        self._states = states
        self._memory: Any = None
        self._held: dict[Rows, _Held] = {}
        self.copies = 0

    def bind(self, binding: Any, cache: CacheView) -> None:
        """Bind the states of a pass, past and present to the same memory."""
        for state, value in zip(self._states, self._values(cache), strict=True):
            binding.bind_ortvalue_input(state.input, value)
            binding.bind_ortvalue_output(state.output, value)

    def wrote(self, cache: CacheView) -> None:
        """A pass has run on these rows."""
        self._held[cache.rows].newer = True

    def settle(self, changing: bool) -> None:
        """Before the arena is read; if it is `changing`, nothing on the device is right afterwards."""
        for held in self._held.values():
            self._bring_home(held)
        if changing:
            self._held.clear()

    def _values(self, cache: CacheView) -> list[Any]:
        if cache.memory is not self._memory:
            self._held.clear()  # an arena that moved its tensors has settled before
            self._memory = cache.memory
            self._memory.look = self.settle
        if cache.rows not in self._held:
            for rows in [rows for rows in self._held if _overlap(rows, cache.rows)]:
                self._bring_home(self._held.pop(rows))
            values = [self._device.make(tensor.shape, tensor.dtype) for tensor in cache.tensors]
            for tensor, value in zip(cache.tensors, values, strict=True):
                self._device.put(tensor, value)
                self.copies += 1
            self._held[cache.rows] = _Held(cache.tensors, values)
        return self._held[cache.rows].values

    def _bring_home(self, held: _Held) -> None:
        if held.newer:
            for tensor, value in zip(held.tensors, held.values, strict=True):
                self._device.take(value, tensor)
                self.copies += 1
            held.newer = False


def _overlap(one: Rows, other: Rows) -> bool:
    return one[0] < other[1] and other[0] < one[1]
