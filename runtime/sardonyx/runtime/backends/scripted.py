"""A backend without a model: logits are a function of the tokens so far. For tests of all that is above.

It keeps the promises of a real one and no others: what it knows of a row it reads back from that row's
cache, padding is written behind what counts, and a row of no positions is refused. So a lost, mixed up or
stale row shows as wrong logits.
"""

from collections.abc import Callable, Sequence

import numpy as np

from sardonyx.runtime.backends.base import Batch, CacheView, Output
from sardonyx.runtime.manifest import FORMAT, Manifest, Source, State, Tokens

Script = Callable[[Sequence[int]], Sequence[float]]
"""From all tokens of a sequence, the last one included, to the logits of what follows, or a hidden state."""


class ScriptedProgram:
    """Stores token ids as the only state, shape `[rows, 1, capacity, 1]`. Logits are what `script` makes of
    them, hidden states what `hidden` does.
    """

    def __init__(self, script: Script, hidden: Script = lambda tokens: ()) -> None:
        self.run_s = 0.0
        self.longest_run = 1 << 20
        self.batches: list[Batch] = []
        self._scripts = (script, hidden)
        self._widths = [len(made([0])) for made in self._scripts]

    def run(self, batch: Batch, cache: CacheView) -> Output:
        assert batch.lengths.min() > 0
        self.batches.append(batch)
        (memory,) = cache.tensors
        past = batch.lengths - batch.counts
        width = batch.ids.shape[1]
        for row, start in enumerate(past):
            memory[row, 0, start : start + width, 0] = batch.ids[row]
        texts = []
        for row, column in zip(*np.divmod(batch.logit_rows, width), strict=True):
            texts.append([int(token) for token in memory[row, 0, : past[row] + column + 1, 0]])
        return Output(
            *(
                np.array([made(text) for text in texts], np.float32).reshape(len(texts), width)
                for made, width in zip(self._scripts, self._widths, strict=True)
            )
        )


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
