"""onnxruntime as a backend: this project's own graphs, bound to the arena.

Past and present states are bound to the same memory, so the kernel appends in place and a step copies no
cache. What was bound for a shape is kept and used again; a decode step then costs a few numbers written into
bound arrays, and a fresh one for logits, which need no copy then.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.backends.base import Batch, CacheView, Output
from sardonyx.runtime.backends.providers import CPU, ON_CPU, Place
from sardonyx.runtime.backends.resident import Resident
from sardonyx.runtime.backends.sessions import device, open_session
from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.manifest import MANIFEST_NAME, MODEL_NAME, Manifest, State
from sardonyx.runtime.threads import l2_cache_bytes

BINDINGS = 16
"""Bindings kept for reuse: a decode shape each, so this covers batches that grow and shrink."""

TYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "int8": "tensor(int8)",
    "uint8": "tensor(uint8)",
    "int32": "tensor(int32)",
    "int64": "tensor(int64)",
}


@dataclass(frozen=True)
class _Bound:
    """One shape's binding with the arrays that are written before a run."""

    binding: Any
    batch: Batch
    total: NDArray[np.int32]


class OrtProgram:
    """A decoder graph in an onnxruntime session."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int, place: Place = ON_CPU) -> None:
        """Raises what `open_session` raises, and ArtifactError when the graph is not the one that the
        manifest speaks of.
        """
        self._session = open_session(folder / MODEL_NAME, threads, place, needs=manifest.minimum_onnxruntime)
        _check_graph(self._session, manifest, folder)
        self.run_s = 0.0
        self.longest_run = query_block(manifest.states, l2_cache_bytes())
        found = device(place)
        self.resident = Resident(found, manifest.states) if found else None
        # what is bound elsewhere was copied when it was bound, and states there may have gone home since
        self._reads_anew = place.provider is CPU and self.resident is None
        self._states = manifest.states
        self._switches = bool(manifest.adapters)
        self._widths = {"logits": manifest.vocab_size, "hidden": manifest.hidden_size}
        self._memory: object = None
        self._bound: OrderedDict[tuple[int, ...], _Bound] = OrderedDict()

    def run(self, batch: Batch, cache: CacheView) -> Output:
        binding = self._bound_to(batch, cache).binding
        output = Output(*(np.empty((len(batch.logit_rows), n), np.float32) for n in self._widths.values()))
        for name, made in zip(self._widths, output, strict=True):
            if made.shape[1]:
                bind_array(binding.bind_output, name, made)
        started = perf_counter()
        self._session.run_with_iobinding(binding)
        self.run_s += perf_counter() - started
        if self.resident:
            self.resident.wrote(cache)
        return output

    def _bound_to(self, batch: Batch, cache: CacheView) -> _Bound:
        if cache.memory is not self._memory:  # bindings hold bare addresses, which must not outlive it
            self._bound.clear()
            self._memory = cache.memory
        key = (*cache.rows, batch.ids.shape[1], len(batch.logit_rows))
        if (bound := self._bound.get(key)) is not None:
            self._bound.move_to_end(key)
            _fill(bound, batch)
            return bound
        bound = self._bind(batch, cache)
        if self._reads_anew:
            self._bound[key] = bound
            if len(self._bound) > BINDINGS:
                self._bound.popitem(last=False)
        return bound

    def _bind(self, batch: Batch, cache: CacheView) -> _Bound:
        binding = self._session.io_binding()
        own = Batch(
            np.empty_like(batch.ids),
            np.empty_like(batch.counts),
            np.empty_like(batch.lengths),
            np.empty_like(batch.logit_rows),
            np.empty_like(batch.adapters),
        )
        total = np.zeros((), np.int32)
        bound = _Bound(binding, own, total)
        _fill(bound, batch)  # before anything is bound: a device takes its copy then
        inputs: dict[str, NDArray[Any]] = {
            "input_ids": own.ids,
            "query_seqlens": own.counts,
            "seqlens_k": own.lengths,
            "logit_rows": own.logit_rows,
            "total_sequence_length": total,
        }
        if self._switches:
            inputs["adapters"] = own.adapters
        for name, array in inputs.items():
            bind_array(binding.bind_input, name, array)
        if self.resident:
            self.resident.bind(binding, cache)
            return bound
        for state, tensor in zip(self._states, cache.tensors, strict=True):
            bind_array(binding.bind_input, state.input, tensor)
            bind_array(binding.bind_output, state.output, tensor)
        return bound


def _fill(bound: _Bound, batch: Batch) -> None:
    own = bound.batch
    own.ids[...] = batch.ids
    own.counts[...] = batch.counts
    np.subtract(batch.lengths, 1, out=own.lengths)  # the kernel counts from zero
    own.logit_rows[...] = batch.logit_rows
    own.adapters[...] = batch.adapters
    bound.total[...] = batch.lengths.max()


def query_block(states: Sequence[State], l2_bytes: int | None) -> int:
    """Queries that the attention kernel takes at once: as many as both head widths together, fewer where
    their scores are too many for the processor's second cache (GQAAttentionBase::ApplyAttention).

    If the last block of a run has but one, it takes the way of a single token, with other last bits.
    """
    widths = 2 * max((state.shape[1] for state in states if state.kind == "kv"), default=64)
    return widths if not l2_bytes else max(1, min(widths, l2_bytes // (16 * widths)))


def bind_array(bind: Any, name: str, array: NDArray[Any]) -> None:
    """Bind an input or an output, by the binding's method that does so, to an array that has to stay."""
    bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)


def _check_graph(session: Any, manifest: Manifest, folder: Path) -> None:
    """Raises ArtifactError when a graph has not the inputs and outputs that its manifest says."""
    expected: dict[str, tuple[str, list[int]]] = {
        "input_ids": ("int64", []),
        "query_seqlens": ("int32", []),
        "seqlens_k": ("int32", []),
        "logit_rows": ("int64", []),
        "total_sequence_length": ("int32", []),
        "logits": ("float32", [manifest.vocab_size]),
    }
    if manifest.adapters:
        expected["adapters"] = ("int64", [])
    if manifest.hidden_size:
        expected["hidden"] = ("float32", [manifest.hidden_size])
    for state in manifest.states:
        expected[state.input] = expected[state.output] = (state.dtype, state.shape)
    found = {
        value.name: (value.type, [size for size in value.shape if isinstance(size, int)])
        for value in (*session.get_inputs(), *session.get_outputs())
    }
    for name in sorted(expected.keys() | found.keys()):
        dtype, shape = expected.get(name, ("", []))
        if found.get(name) != (TYPES.get(dtype), shape):
            raise ArtifactError(
                f"{folder / MODEL_NAME}: its {name} is not what {MANIFEST_NAME} says; export the model again"
            )
