"""L4: random weights give the logits of transformers, whatever the architecture and however they are fed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from feeding import FEEDINGS
from random_models import UNMEASURED, letters_tokenizer, random_weight
from sardonyx.export.api import export
from sardonyx.models import architectures
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.model import Model
from variants import configs

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4
CONFIGS = dict(configs())
Parity = tuple[Model, list[list[int]], NDArray[np.float32]]


@pytest.fixture(scope="module", params=CONFIGS)
def parity(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Parity:
    """The exported model, sequences of tokens, transformers' logits `[sequences, tokens, vocab]`."""
    config = CONFIGS[request.param]
    folder = tmp_path_factory.mktemp("parity")
    sequences = np.random.default_rng(2).integers(0, config["vocab_size"], (4, 60)).tolist()
    expected = saved_by_transformers(config, folder / "source", sequences)
    manifest = export(folder / "source", folder / "artifact", recipe="fp32", options=UNMEASURED)
    return Model(manifest, OrtProgram(folder / "artifact", manifest, threads=1)), sequences, expected


def saved_by_transformers(
    config: Mapping[str, Any], folder: Path, sequences: list[list[int]]
) -> NDArray[np.float32]:
    """Save a model of random weights as users do, with a tokenizer; returns its logits for the sequences."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_utils import no_init_weights

    with no_init_weights():
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**config), dtype=torch.float32, attn_implementation="eager"
        ).eval()
    model.tie_weights()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(random_weight(name, tuple(parameter.shape), rng)))
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "tokenizer.json").write_bytes(letters_tokenizer(config["vocab_size"]))
    with torch.no_grad():
        return model(torch.tensor(sequences)).logits.numpy()


@pytest.mark.parametrize("feeding", FEEDINGS)
def test_l4_logits_equal_those_of_transformers(parity: Parity, feeding: str) -> None:
    model, sequences, expected = parity
    for logits, wanted in zip(FEEDINGS[feeding](model, sequences), expected, strict=True):
        np.testing.assert_allclose(logits, wanted, rtol=0, atol=TOLERANCE)


def test_l4_longrope_within_the_original_context(tmp_path: Path) -> None:
    """An artifact for no more positions than were first trained has the short divisors, as transformers has
    for texts that are no longer; its angles are stretched all the same.
    """
    config = {**architectures()["phi3"].EXAMPLE, "original_max_position_embeddings": 64}
    sequences = np.random.default_rng(4).integers(0, config["vocab_size"], (2, 60)).tolist()
    expected = saved_by_transformers(config, tmp_path / "source", sequences)
    options = replace(UNMEASURED, context=64)
    manifest = export(tmp_path / "source", tmp_path / "artifact", recipe="fp32", options=options)
    model = Model(manifest, OrtProgram(tmp_path / "artifact", manifest, threads=1))
    for logits, wanted in zip(FEEDINGS["chunks"](model, sequences), expected, strict=True):
        np.testing.assert_allclose(logits, wanted, rtol=0, atol=TOLERANCE)
