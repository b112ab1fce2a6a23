"""Invariants hold for what is sound, and each finds the program that breaks it."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from sardonyx.export.certificate import Limits, invariant_checks
from sardonyx.export.invariants import WAYS, invariants
from sardonyx.export.texts import own_texts
from sardonyx.runtime.backends.base import Batch, CacheView, Output
from sardonyx.runtime.backends.scripted import ScriptedProgram
from sardonyx.runtime.llm import LLM
from scripted_llm import scripted_llm

Fault = Callable[[Batch, CacheView], float]
"""What is added to the first logit of every row of a pass."""

STEP, CHUNKS, BATCH, RAGGED, REWIND = (
    "cached step = full recompute",
    "chunked prefill = one-shot",
    "batch = alone",
    "ragged batch = alone",
    "after keep and rewind = fresh",
)


def several(batch: Batch) -> bool:
    return batch.ids.shape[1] > 1


def stale(batch: Batch, cache: CacheView) -> float:
    """What lies behind the rows' ends."""
    return float(sum(cache.tensors[0][row, 0, end, 0] for row, end in enumerate(batch.lengths)))


FAULTS: dict[str, tuple[Fault, set[str]]] = {
    "none": (lambda batch, cache: 0.0, set()),
    "noise within its limit": (lambda batch, cache: 0.005 * several(batch), set()),
    "single tokens": (lambda batch, cache: 0.02 * several(batch), {STEP}),
    "chunks after others": (
        lambda batch, cache: 9.0 * (several(batch) and bool((batch.lengths > batch.counts).any())),
        {CHUNKS},
    ),
    "company": (lambda batch, cache: 1e-6 * len(batch.ids), {BATCH, RAGGED, REWIND}),
    "company in runs": (lambda batch, cache: 1e-6 * several(batch) * len(batch.ids), {RAGGED}),
}


class FaultyProgram(ScriptedProgram):
    """Right but for a fault."""

    fault: Fault

    def run(self, batch: Batch, cache: CacheView) -> Output:
        output = super().run(batch, cache)
        output.logits[:, 0] += self.fault(batch, cache)
        return output


def llm_with(fault: Fault) -> LLM:
    sound = scripted_llm()
    vocab = sound.manifest.vocab_size

    def script(tokens: Sequence[int]) -> NDArray[np.float64]:
        """Depends on every token so far and on their order; the first logit is always the first choice."""
        logits = np.random.default_rng(list(tokens)).standard_normal(vocab)
        logits[0] = 8
        return logits

    program = FaultyProgram(script)  # type: ignore[arg-type]
    program.fault = fault
    return LLM(sound.manifest, sound.tokenizer, sound.chat_template, program)


def missed(llm: LLM) -> set[str]:
    windows = [windows[0] for windows in own_texts(llm).windows.values()]
    found = list(invariants(llm, windows, Limits(noise=0.01, flips=0)))
    assert [invariant.name for invariant in found] == [STEP, CHUNKS, BATCH, RAGGED, REWIND]
    assert len(found) == WAYS
    assert all(invariant.positions > 10 for invariant in found)
    return {check.what.partition(":")[0] for check in invariant_checks(found) if not check.met}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_by_what_it_breaks(name: str) -> None:
    fault, broken = FAULTS[name]
    assert missed(llm_with(fault)) == broken


def test_a_cache_that_remembers_what_was_taken_back() -> None:
    assert REWIND in missed(llm_with(stale))


def test_a_flip_is_counted_once_for_each_position() -> None:
    llm = llm_with(lambda batch, cache: -100.0 * several(batch))
    windows = [windows[0] for windows in own_texts(llm).windows.values()]
    step, *_ = invariants(llm, windows, Limits())
    assert (step.flips, step.positions) == (80, 80)
    assert step.worst == pytest.approx(100)
    assert step.kl_mean > 1
