"""onnxruntime as a backend: sessions, bindings, nothing else. The only module that imports it.

Past and present states are bound to the same memory, so the kernel appends in place and a step copies no
cache. What was bound for a shape is kept and used again; a decode step then costs a few numbers written into
bound arrays.
"""

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when the library starts

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sardonyx.runtime.backends.base import Batch, CacheView, Output
from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.manifest import MODEL_NAME, Manifest

BINDINGS = 16
"""Bindings kept for reuse: a decode shape each, so this covers batches that grow and shrink."""


@dataclass(frozen=True)
class _Bound:
    """One shape's binding with the arrays that are written before a run and read after it."""

    binding: Any
    batch: Batch
    output: Output
    total: NDArray[np.int32]


class OrtProgram:
    """A decoder graph in an onnxruntime session on the CPU."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int, *, mapped: bool = False) -> None:
        """`mapped` leaves weights where they lie in the file. Raises ArtifactError when onnxruntime refuses
        the graph.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # shapes change from pass to pass
        options.log_severity_level = 3
        if mapped:
            options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            self._session = ort.InferenceSession(
                folder / MODEL_NAME, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ArtifactError(
                f"{folder / MODEL_NAME}: onnxruntime {ort.__version__} cannot load it "
                f"(it needs {manifest.minimum_onnxruntime} or newer): {_first_line(error)}"
            ) from error
        self.run_s = 0.0
        self._states = manifest.states
        self._widths = {"logits": manifest.vocab_size, "hidden": manifest.hidden_size}
        self._memory: object = None
        self._bound: OrderedDict[tuple[int, ...], _Bound] = OrderedDict()

    def run(self, batch: Batch, cache: CacheView) -> Output:
        bound = self._bound_to(batch, cache)
        for name in ("ids", "counts", "lengths", "logit_rows"):
            getattr(bound.batch, name)[...] = getattr(batch, name)
        bound.batch.lengths[...] -= 1  # the kernel counts from zero
        bound.total[...] = batch.lengths.max()
        started = perf_counter()
        self._session.run_with_iobinding(bound.binding)
        self.run_s += perf_counter() - started
        return bound.output

    def _bound_to(self, batch: Batch, cache: CacheView) -> _Bound:
        if cache.memory is not self._memory:  # bindings hold bare addresses, which must not outlive it
            self._bound.clear()
            self._memory = cache.memory
        key = (*cache.rows, batch.ids.shape[1], len(batch.logit_rows))
        if key not in self._bound:
            self._bound[key] = self._bind(batch, cache)
            if len(self._bound) > BINDINGS:
                self._bound.popitem(last=False)
        self._bound.move_to_end(key)
        return self._bound[key]

    def _bind(self, batch: Batch, cache: CacheView) -> _Bound:
        binding = self._session.io_binding()
        own = Batch(*(np.empty_like(a) for a in (batch.ids, batch.counts, batch.lengths, batch.logit_rows)))
        total = np.zeros((), np.int32)
        output = Output(*(np.empty((len(batch.logit_rows), n), np.float32) for n in self._widths.values()))
        inputs = {
            "input_ids": own.ids,
            "query_seqlens": own.counts,
            "seqlens_k": own.lengths,
            "logit_rows": own.logit_rows,
            "total_sequence_length": total,
        }
        for name, array in inputs.items():
            _bind_array(binding.bind_input, name, array)
        for state, tensor in zip(self._states, cache.tensors, strict=True):
            _bind_array(binding.bind_input, state.input, tensor)
            _bind_array(binding.bind_output, state.output, tensor)
        for (name, width), made in zip(self._widths.items(), output, strict=True):
            if width:
                _bind_array(binding.bind_output, name, made)
        return _Bound(binding, own, output, total)


def _bind_array(bind: Any, name: str, array: NDArray[Any]) -> None:
    bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
