"""Graphs of other origin as a backend: fed with an attention mask, whatever they do with their cache.

Above, nobody knows: the engine batches rows of any lengths, the arena holds them. Here a batch is cut into
what the graph takes at once, so that a row's numbers do not depend on its company.
"""

from collections.abc import Sequence
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.backends.base import Batch, CacheView, Output
from sardonyx.runtime.backends.ort import bind_array, query_block
from sardonyx.runtime.backends.passes import Pass, Share, passes, rules_of, share
from sardonyx.runtime.backends.providers import CPU, ON_CPU, Place
from sardonyx.runtime.backends.resident import Resident
from sardonyx.runtime.backends.sessions import device
from sardonyx.runtime.backends.signature import BRANCH, IDS, KEPT, LOGITS, MASK, POSITIONS, Signature
from sardonyx.runtime.manifest import State
from sardonyx.runtime.threads import l2_cache_bytes

Array = NDArray[Any]
Lengths = NDArray[np.int32]


class MaskedProgram:
    """A decoder graph that takes `attention_mask` instead of lengths, in a session of onnxruntime's."""

    def __init__(self, session: Any, signature: Signature, vocab_size: int, place: Place = ON_CPU) -> None:
        found = device(place)
        resident = Resident(found, signature.states) if found else None
        reads_anew = place.provider is CPU and resident is None  # a device copies what is bound
        self.run_s = 0.0
        self.longest_run = 1 << 20  # attention made of plain operators promises nothing
        if signature.in_place:  # and this kernel what it promises our own graphs
            self.longest_run = query_block(signature.states, l2_cache_bytes())
        self._session = session
        self._signature = signature
        self._rules = rules_of(signature)
        self._vocab_size = vocab_size
        self._cache: Cache = (
            InPlace(session, signature.states, reads_anew, resident)
            if signature.in_place
            else Beside(session, signature.states)
        )

    def run(self, batch: Batch, cache: CacheView) -> Output:
        logits = np.empty((len(batch.logit_rows), self._vocab_size), np.float32)
        for one in passes(batch, self._rules):
            part = share(batch, one)
            kept = self._kept(one, part.columns)
            made = self._run(one, part, batch, cache, kept)
            logits[part.asked] = made[part.rows, part.columns - (one.width - kept)]
        return Output(logits, np.empty((len(logits), 0), np.float32))

    def _kept(self, one: Pass, wanted: NDArray[np.int64]) -> int:
        """Of how many of the last columns the graph gives logits."""
        if self._signature.last_only:
            return 1
        first = int(wanted.min(initial=one.width - 1))
        return one.width - first if KEPT in self._signature.inputs else one.width

    def _run(self, one: Pass, part: Share, batch: Batch, cache: CacheView, kept: int) -> Array:
        """Logits `[rows, kept, vocab]`, in the graph's type."""
        past, counts = part.past, part.counts
        binding = self._cache.bound(one, cache, past)
        made = {
            IDS: batch.ids[one.rows, one.first : one.first + one.width],
            MASK: self._cache.seen(past, counts, one.width),
            POSITIONS: np.minimum(past[:, None] + np.arange(one.width), (past + counts - 1)[:, None]),
            BRANCH: np.full(1, past.max() > 0),
            KEPT: np.full(self._signature.inputs[KEPT].shape if KEPT in self._signature.inputs else (), kept),
        }
        fed = [
            (name, np.asarray(made[name], port.dtype, order="C"))
            for name, port in self._signature.inputs.items()
        ]  # held until the run is over: bindings are bare addresses
        for name, array in fed:
            bind_array(binding.bind_input, name, array)
        logits = np.empty((len(past), kept, self._vocab_size), self._signature.logits.dtype)
        bind_array(binding.bind_output, LOGITS, logits)
        started = perf_counter()
        self._session.run_with_iobinding(binding)
        self.run_s += perf_counter() - started
        self._cache.take(past, counts)
        return logits


class Cache(Protocol):
    """How a graph gets at the arena."""

    def bound(self, one: Pass, cache: CacheView, past: Lengths) -> Any:
        """A binding with the states of a pass's rows, which hold `past` positions."""

    def seen(self, past: Lengths, counts: Lengths, width: int) -> NDArray[np.bool_]:
        """The attention mask `[rows, positions]`."""

    def take(self, past: Lengths, counts: Lengths) -> None:
        """The pass is over: see that the new positions are in the arena."""


class InPlace:
    """Past and present are the arena itself: the kernel writes behind what is there. Needs no copy."""

    def __init__(
        self, session: Any, states: Sequence[State], reads_anew: bool, resident: Resident | None
    ) -> None:
        self._reads_anew = reads_anew
        self._resident = resident
        self._session = session
        self._states = states
        self._last: tuple[object, tuple[int, int], Any] | None = None

    def bound(self, one: Pass, cache: CacheView, past: Lengths) -> Any:
        place = cache.rows[0] + one.rows.start, cache.rows[0] + one.rows.stop
        if self._reads_anew and self._last and self._last[0] is cache.memory and self._last[1] == place:
            return self._last[2]  # most often
        binding = self._session.io_binding()
        if self._resident:
            its = CacheView([tensor[one.rows] for tensor in cache.tensors], cache.memory, place)
            self._resident.bind(binding, its)
            self._resident.wrote(its)
            return binding
        for state, tensor in zip(self._states, cache.tensors, strict=True):
            bind_array(binding.bind_input, state.input, tensor[one.rows])
            bind_array(binding.bind_output, state.output, tensor[one.rows])
        self._last = cache.memory, place, binding
        return binding

    def seen(self, past: Lengths, counts: Lengths, width: int) -> NDArray[np.bool_]:
        """Positions count from the left."""
        ends = (past + counts)[:, None]
        seen: NDArray[np.bool_] = np.arange(ends.max()) < ends
        return seen

    def take(self, past: Lengths, counts: Lengths) -> None:
        pass


class Beside:
    """The graph puts past and new tokens together, beside the arena: pasts are copied out, new positions
    back.

    Rows end their pasts together, and begin their new tokens together. So the tokens of a row lie side by
    side, and what a graph derives from distances within a row is right.
    """

    def __init__(self, session: Any, states: Sequence[State]) -> None:
        self._session = session
        self._states = states
        self._rooms: dict[str, Array] = {}
        self._pairs: list[tuple[Array, Array]] = []

    def bound(self, one: Pass, cache: CacheView, past: Lengths) -> Any:
        binding = self._session.io_binding()
        self._pairs = []
        before = int(past.max())
        for state, whole in zip(self._states, cache.tensors, strict=True):
            tensor = whole[one.rows]
            rows, heads, _, width = tensor.shape
            copy = self._room(state.input, (rows, heads, before, width), tensor.dtype)
            for row, length in enumerate(past):
                copy[row, :, : before - length] = 0  # masked, but nothing that could make a sum NaN
                copy[row, :, before - length :] = tensor[row, :, :length]
            present = self._room(state.output, (rows, heads, before + one.width, width), tensor.dtype)
            bind_array(binding.bind_input, state.input, copy)
            bind_array(binding.bind_output, state.output, present)
            self._pairs.append((tensor, present))
        return binding

    def seen(self, past: Lengths, counts: Lengths, width: int) -> NDArray[np.bool_]:
        """New tokens begin at 0, pasts end there."""
        at = np.arange(-past.max(), width)
        seen: NDArray[np.bool_] = (-past[:, None] <= at) & (at < counts[:, None])
        return seen

    def take(self, past: Lengths, counts: Lengths) -> None:
        before = int(past.max())
        for tensor, present in self._pairs:
            for row, (start, count) in enumerate(zip(past, counts, strict=True)):
                tensor[row, :, start : start + count] = present[row, :, before : before + count]

    def _room(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Memory for a tensor, kept from pass to pass and doubled when it is too small."""
        size = int(np.prod(shape))
        room = self._rooms.get(name)
        if room is None or room.size < size:
            room = self._rooms[name] = np.empty(2 * size, dtype)
        return room[:size].reshape(shape)
