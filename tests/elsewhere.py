"""What is asked of a model on another execution provider, whichever it is: to be what it is on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np

from sardonyx.export.divergence import concatenated
from sardonyx.export.texts import texts_of
from sardonyx.export.verify import diverge
from sardonyx.runtime.backends.providers import ON_CPU, Place
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.loading import load_parts
from sardonyx.runtime.model import Model, Step
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies import Feed


def logits(llm: LLM, tokens: list[int]) -> np.ndarray:
    """Of 60 tokens: a prompt longer than any piece, single steps, several tokens behind a past."""
    feeds = [tokens[:40], [tokens[40]], [tokens[41]], tokens[42:]]
    return np.concatenate([out for (out,) in llm.logits(*(Feed([f], wanted=len(f)) for f in feeds))])


def says_the_same(folder: Path, there: Place, max_tokens: int) -> bool:
    """Whether its greedy answer to a question is the CPU's."""
    params = SamplingParams(temperature=0, max_tokens=max_tokens)
    prompt = [{"role": "user", "content": "What is the capital of France?"}]
    one, other = (LLM.load(folder, place=p).generate(prompt, params) for p in (ON_CPU, there))
    return one.tokens == other.tokens


def mean_kl(folder: Path, there: Place, text: Path, sentences: int) -> float:
    """From the CPU, over so many sentences of some 17 tokens; `text` is a file to write them to."""
    text.write_text("An onyx is a banded stone; a sardonyx is one with layers of red. " * sentences)
    llm, reference = (LLM.load(folder, place=p) for p in (there, ON_CPU))
    found = concatenated(list(diverge(reference, llm, texts_of(llm, (text,))).values()))
    return float(found.kl.mean())


class Steps:
    """A row of a model on a device, and the states that are copied for it, to the device or home."""

    def __init__(self, folder: Path, there: Place) -> None:
        parts = load_parts(folder, 1, there)
        program: Any = parts.program._program  # type: ignore[attr-defined]
        self._resident = getattr(program, "resident", None) or program._cache._resident
        self.model = Model(parts.manifest, parts.program)
        self.row = self.model.arena.row()
        self.states = len(parts.manifest.states)

    @property
    def copies(self) -> int:
        copies: int = self._resident.copies
        return copies

    def feed(self, *tokens: int) -> None:
        """In one step."""
        self.model.forward([Step(self.row, list(tokens))])
