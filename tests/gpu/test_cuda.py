"""CUDA, where there is an NVIDIA card and onnxruntime-gpu (`make cuda`); elsewhere skipped, which is said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from elsewhere import Steps, logits, says_the_same
from random_models import UNMEASURED, random_checkpoint
from sardonyx.export.api import Options, export
from sardonyx.models import architectures
from sardonyx.runtime.backends import sessions
from sardonyx.runtime.backends.providers import PROVIDERS, place
from sardonyx.runtime.fetch import pull
from sardonyx.runtime.library import DEFAULT_MODEL, Library
from sardonyx.runtime.llm import LLM

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        PROVIDERS["cuda"] not in sessions.present(),
        reason="CUDA is NOT tested: no card, or no onnxruntime-gpu",
    ),
]

CUDA = place("cuda")


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "phi3"])
def test_halves_are_computed_there(name: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint({**architectures()[name].EXAMPLE})
    for target, recipe in (("portable", "fp32"), ("cuda", "fp16")):
        export(checkpoint, tmp_path / target, recipe=recipe, options=replace(UNMEASURED, target=target))
    tokens = np.random.default_rng(0).integers(0, checkpoint.config["vocab_size"], 60).tolist()
    here, there = (
        logits(LLM.load(tmp_path / target, place=place(provider)), tokens)
        for target, provider in (("portable", "cpu"), ("cuda", "cuda"))
    )
    assert np.abs(there - here).max() <= 0.01 * np.abs(here).max()


def test_states_stay_on_the_device(tmp_path: Path) -> None:
    checkpoint = random_checkpoint({**architectures()["llama"].EXAMPLE})
    export(checkpoint, tmp_path / "it", recipe="fp16", options=replace(UNMEASURED, target="cuda"))
    steps = Steps(tmp_path / "it", CUDA)
    steps.feed(*range(1, 21))
    there = steps.copies
    assert there == steps.states
    for token in range(21, 29):
        steps.feed(token)
    assert steps.copies == there


def test_smollm2_says_what_it_says_on_the_cpu(tmp_path: Path) -> None:
    source = pull(DEFAULT_MODEL, Library.of_user(), lambda done, total, what: None)
    export(source, tmp_path / "it", recipe="fp16", options=Options(context=256, verify=False, target="cuda"))
    assert says_the_same(tmp_path / "it", CUDA, max_tokens=8)
