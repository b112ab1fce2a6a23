"""WebGPU, really run: on a graphics card, or on Vulkan in software where there is none (`make gpu`)."""

import os
from pathlib import Path

import numpy as np
import pytest

from random_models import export_random
from sardonyx.export.api import Options, export
from sardonyx.models import architectures
from sardonyx.runtime.backends import sessions
from sardonyx.runtime.backends.providers import PROVIDERS, place
from sardonyx.runtime.errors import ArtifactError, RequestError
from sardonyx.runtime.fetch import pull
from sardonyx.runtime.library import DEFAULT_MODEL, Library
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies import Feed

pytestmark = pytest.mark.gpu

WEBGPU = place("webgpu")
SAME = 2e-3
"""Of float32 logits: sums in another order, and half the digits of a few functions."""


@pytest.fixture(scope="module", autouse=True)
def device() -> None:
    assert os.environ.get("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER") == "1", "run this with: make gpu"
    assert PROVIDERS["webgpu"] in sessions.present(), "no Vulkan device: see .ci/software-vulkan"


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "mistral"])
@pytest.mark.filterwarnings("ignore::Warning")
def test_logits_are_those_of_the_cpu(name: str, tmp_path: Path) -> None:
    """A prompt longer than any piece, single steps, several tokens behind a past."""
    config = {**architectures()[name].EXAMPLE}
    export_random(config, tmp_path / "artifact")
    tokens = [int(token) for token in np.random.default_rng(0).integers(0, config["vocab_size"], 60)]
    feeds = [tokens[:40], [tokens[40]], [tokens[41]], tokens[42:60]]

    def logits(llm: LLM) -> np.ndarray:
        return np.concatenate([out for (out,) in llm.logits(*(Feed([f], wanted=len(f)) for f in feeds))])

    here, there = (LLM.load(tmp_path / "artifact", threads=1, place=p) for p in (place("cpu"), WEBGPU))
    expected, found = logits(here), logits(there)
    assert np.abs(found - expected).max() <= SAME * max(1, np.abs(expected).max())


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2") / "fp32"
    source = pull(DEFAULT_MODEL, Library.of_user(), lambda done, total, what: None)
    export(source, folder, recipe="fp32", options=Options(context=256, verify=False))
    return folder


def test_smollm2_says_what_it_says_on_the_cpu(smollm2: Path) -> None:
    params = SamplingParams(temperature=0, max_tokens=5)
    prompt = [{"role": "user", "content": "What is the capital of France?"}]
    here, there = (LLM.load(smollm2, place=p).generate(prompt, params) for p in (place("cpu"), WEBGPU))
    assert there.tokens == here.tokens


def test_attention_that_the_device_gets_wrong_is_refused(tmp_path: Path) -> None:
    """Version 0.4 of the plugin leaves soft caps out, without a word."""
    export_random(architectures()["gemma2"].EXAMPLE, tmp_path / "artifact")
    with pytest.raises(RequestError, match=r"webgpu: attention with .*softcap comes out wrong"):
        LLM.load(tmp_path / "artifact", place=WEBGPU)


def test_what_would_run_on_the_cpu_is_refused(tmp_path: Path) -> None:
    export_random(architectures()["llama"].EXAMPLE, tmp_path / "artifact", recipe="int8")
    with pytest.raises(ArtifactError, match=r"webgpu has no kernel for .*QuantizeLinear"):
        LLM.load(tmp_path / "artifact", place=WEBGPU)
