"""Architectures of which there is no description: traced by optimum, brought home, equal to transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from feeding import FEEDINGS
from random_models import letters_tokenizer, random_weight
from sardonyx.export.api import Options, export
from sardonyx.export.certificate import stored_certificate
from sardonyx.models import architectures
from sardonyx.runtime.loading import load_parts
from sardonyx.runtime.model import Model

pytestmark = pytest.mark.parity

VOCAB = 96
COMMON: dict[str, Any] = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 0}
CONFIGS: dict[str, dict[str, Any]] = {
    # positions counted from the mask, tied table
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "word_embed_proj_dim": 32,
        "pad_token_id": 1,
    },
    # distances instead of positions, made of the mask
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "seq_length": 128},
    # rotary positions that are given, a head with a bias
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "rotary_dim": 8},
    # local windows
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "max_position_embeddings": 128,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
}
Traced = tuple[Path, list[list[int]], NDArray[np.float32]]


@pytest.fixture(scope="module", params=CONFIGS)
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """A saved model of random weights, sequences of tokens, transformers' logits for them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    assert request.param not in architectures()
    folder = tmp_path_factory.mktemp("traced") / request.param
    config = AutoConfig.for_model(request.param, **COMMON, **CONFIGS[request.param])
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(random_weight(name, tuple(parameter.shape), rng)))
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(letters_tokenizer(VOCAB))
    sequences = np.random.default_rng(2).integers(2, VOCAB, (4, 60)).tolist()
    with torch.no_grad():
        return folder, sequences, model(torch.tensor(sequences)).logits.numpy()


def test_float_is_equal_however_it_is_fed(traced: Traced, tmp_path: Path) -> None:
    source, sequences, expected = traced
    export(source, tmp_path / "out", recipe="fp32", options=Options(verify=False, via="optimum"))
    parts = load_parts(tmp_path / "out", 1)
    for name, feed in FEEDINGS.items():
        found = feed(Model(parts.manifest, parts.program), sequences)
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=name)


def test_int8_keeps_its_promise(traced: Traced, tmp_path: Path) -> None:
    source, _, _ = traced
    export(source, tmp_path / "out", recipe="int8", options=Options(via="optimum"))
    certificate = stored_certificate(tmp_path / "out")
    assert certificate is not None
    assert 0 < certificate.overall.kl_mean < 0.045
