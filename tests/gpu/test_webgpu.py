"""WebGPU, really run: on a graphics card, or on Vulkan in software where there is none (`make gpu`)."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from elsewhere import Steps, logits, mean_kl, says_the_same
from random_models import UNMEASURED, export_random, random_checkpoint
from sardonyx.export.api import Options, export
from sardonyx.models import architectures
from sardonyx.runtime.backends import sessions
from sardonyx.runtime.backends.providers import PROVIDERS, place
from sardonyx.runtime.errors import ArtifactError, RequestError
from sardonyx.runtime.fetch import pull
from sardonyx.runtime.library import DEFAULT_MODEL, Library
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.model import Step
from sardonyx.runtime.strategies import Feed

pytestmark = pytest.mark.gpu

WEBGPU = place("webgpu")
SAME = 2e-3
"""Of float32 logits: sums in another order, and half the digits of a few functions."""


@pytest.fixture(scope="module", autouse=True)
def device() -> None:
    assert os.environ.get("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER") == "1", "run this with: make gpu"
    assert PROVIDERS["webgpu"] in sessions.present(), "no Vulkan device: see .ci/software-vulkan"


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "mistral", "lfm2"])
@pytest.mark.filterwarnings("ignore::Warning")
def test_logits_are_those_of_the_cpu(name: str, tmp_path: Path) -> None:
    """A prompt longer than any piece, single steps, several tokens behind a past."""
    config = {**architectures()[name].EXAMPLE}
    export_random(config, tmp_path / "artifact")
    tokens = [int(token) for token in np.random.default_rng(0).integers(0, config["vocab_size"], 60)]
    here, there = (LLM.load(tmp_path / "artifact", threads=1, place=p) for p in (place("cpu"), WEBGPU))
    expected, found = logits(here, tokens), logits(there, tokens)
    assert np.abs(found - expected).max() <= SAME * max(1, np.abs(expected).max())


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "mistral"])
@pytest.mark.filterwarnings("ignore::Warning")
def test_halves_are_computed_there(name: str, tmp_path: Path) -> None:
    """Sums in float16, too, unlike on the CPU: a hundredth of the largest logit is what that costs."""
    checkpoint = random_checkpoint({**architectures()[name].EXAMPLE})
    for target, recipe in (("cpu", "fp32"), ("webgpu", "fp16")):
        export(checkpoint, tmp_path / target, recipe=recipe, options=replace(UNMEASURED, target=target))
    tokens = np.random.default_rng(0).integers(0, checkpoint.config["vocab_size"], 60).tolist()
    here, there = (
        LLM.load(tmp_path / target, threads=1, place=place(provider))
        for target, provider in (("cpu", "cpu"), ("webgpu", "webgpu"))
    )
    ((expected,),), ((found,),) = (llm.logits(Feed([tokens], wanted=60)) for llm in (here, there))
    assert np.abs(found - expected).max() <= 0.01 * np.abs(expected).max()
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.95


@pytest.mark.parametrize("target", ["cpu", "webgpu"])
def test_states_stay_on_the_device(target: str, tmp_path: Path) -> None:
    """They go there once, steps and a rewind copy none, and for a fork they come home once."""
    checkpoint = random_checkpoint({**architectures()["llama"].EXAMPLE})
    options = replace(UNMEASURED, target=target)
    export(checkpoint, tmp_path / "it", recipe="fp32" if target == "cpu" else "fp16", options=options)
    steps = Steps(tmp_path / "it", WEBGPU)
    steps.feed(*range(1, 21))
    there = steps.copies
    assert there == steps.states
    for token in range(21, 29):
        steps.feed(token)
    steps.model.arena.trim(steps.row, 25)
    steps.feed(26, 27, 28)
    assert steps.copies == there
    fork = steps.model.arena.fork(steps.row, 28)
    assert steps.copies == 2 * there
    one, other = steps.model.forward([Step(steps.row, [29]), Step(fork, [29])])
    np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module", params=["cpu", "webgpu"])
def smollm2(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As float32, and in float16."""
    folder = tmp_path_factory.mktemp("smollm2") / request.param
    source = pull(DEFAULT_MODEL, Library.of_user(), lambda done, total, what: None)
    recipe = "fp32" if request.param == "cpu" else "fp16"
    export(source, folder, recipe=recipe, options=Options(context=128, verify=False, target=request.param))
    return folder


def test_smollm2_says_what_it_says_on_the_cpu(smollm2: Path) -> None:
    assert says_the_same(smollm2, WEBGPU, max_tokens=5)


def test_smollm2_is_certified_there(smollm2: Path, tmp_path: Path) -> None:
    """Measured against the CPU. What halves cost is told: sums of them, not only what is stored."""
    found = mean_kl(smollm2, WEBGPU, tmp_path / "text.txt", sentences=8)
    print(f"mean KL of {smollm2.name} on WebGPU from the CPU: {found:.2e} nats")
    assert found < (1e-5 if smollm2.name == "cpu" else 5e-3)


def test_attention_that_the_device_gets_wrong_is_refused(tmp_path: Path) -> None:
    """Version 0.4 of the plugin leaves soft caps out, without a word."""
    export_random(architectures()["gemma2"].EXAMPLE, tmp_path / "artifact")
    with pytest.raises(RequestError, match=r"webgpu: attention with .*softcap comes out wrong"):
        LLM.load(tmp_path / "artifact", place=WEBGPU)


def test_what_would_run_on_the_cpu_is_refused(tmp_path: Path) -> None:
    export_random(architectures()["llama"].EXAMPLE, tmp_path / "artifact", recipe="int8")
    with pytest.raises(ArtifactError, match=r"webgpu has no kernel for .*QuantizeLinear.*--target webgpu"):
        LLM.load(tmp_path / "artifact", place=WEBGPU)
