"""A backend without a model: logits are a function of the tokens so far. For tests of all that is above.

It keeps the same promises as a real one: what it knows of a row it reads back from that row's cache, so a
lost, mixed up or stale row shows as wrong logits.
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

    def run(self, batch: Batch, cache: CacheView) -> Float32:
        self.batches.append(batch)
        (memory,) = cache.tensors
        logits = []
        past = batch.lengths - batch.counts
        for row, count in enumerate(batch.counts):
            memory[row, 0, past[row] : batch.lengths[row], 0] = batch.ids[row, :count]
        for flat in batch.logit_rows:
            row, column = divmod(int(flat), batch.ids.shape[1])
            seen = memory[row, 0, : past[row] + column + 1, 0]
            logits.append(self._script([int(token) for token in seen]))
        return np.array(logits, np.float32).reshape(len(logits), -1)


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
