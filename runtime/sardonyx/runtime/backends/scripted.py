"""A backend without a model: logits are a function of the tokens so far. For tests of all that is above.

It keeps the promises of a real one and no others: what it knows of a row it reads back from that row's
cache, padding is written behind what counts, a row of no positions is refused, and logits last until the next
call. So a lost, mixed up or stale row shows as wrong logits.
"""

from collections.abc import Callable, Sequence

import numpy as np

from sardonyx.runtime.backends.base import Batch, CacheView, Float32
from sardonyx.runtime.manifest import FORMAT, Manifest, Source, State, Tokens

Script = Callable[[Sequence[int]], Sequence[float]]
"""From all tokens of a sequence, the last one included, to the logits of what follows."""


class ScriptedProgram:
    """Stores token ids as the only state, shape `[rows, 1, capacity, 1]`, and asks `script` for logits."""

    def __init__(self, script: Script) -> None:
        self.run_s = 0.0
        self.batches: list[Batch] = []
        self._script = script
        self._logits = np.empty((0, len(script([0]))), np.float32)

    def run(self, batch: Batch, cache: CacheView) -> Float32:
        assert batch.lengths.min() > 0
        self.batches.append(batch)
        self._logits.fill(np.nan)
        (memory,) = cache.tensors
        past = batch.lengths - batch.counts
        width = batch.ids.shape[1]
        for row, start in enumerate(past):
            memory[row, 0, start : start + width, 0] = batch.ids[row]
        logits = []
        for row, column in zip(*np.divmod(batch.logit_rows, width), strict=True):
            seen = memory[row, 0, : past[row] + column + 1, 0]
            logits.append(self._script([int(token) for token in seen]))
        self._logits = np.array(logits, np.float32).reshape(-1, self._logits.shape[1])
        return self._logits


def scripted_manifest(vocab_size: int, context_length: int = 256, eos: Sequence[int] = ()) -> Manifest:
    """A manifest that fits `ScriptedProgram`."""
    return Manifest(
        format=FORMAT,
        name="scripted",
        architecture="scripted",
        parameters=0,
        vocab_size=vocab_size,
        context_length=context_length,
        recipe="none",
        target="none",
        states=[State("past", "present", "kv", [1, 1], "float32")],
        tokens=Tokens(list(eos)),
        source=Source("scripted", "none", ""),
        files={},
        minimum_onnxruntime="0",
        exporter="scripted",
    )
