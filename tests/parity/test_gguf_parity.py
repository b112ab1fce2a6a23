"""L4 for GGUF: what our reader makes of a file gives the logits that transformers' own reader gives.

transformers reads the tensors of these architectures, but not all of their metadata: it is handed the config.
Files are those of `gguf_models.py`; that our reader gets the config right is `test_gguf_round_trip.py`.
"""

from pathlib import Path

import numpy as np
import pytest

from gguf_models import config_of, write_model
from random_models import random_checkpoint
from sardonyx.export.checkpoint import open_checkpoint
from sardonyx.export.numpy_graph import NumpyGraph
from sardonyx.models import describe

pytestmark = pytest.mark.parity

READ_BY_TRANSFORMERS = (
    "falcon",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "lfm2",
    "llama",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "starcoder2",
)
TOLERANCE = 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", READ_BY_TRANSFORMERS)
def test_l4_a_gguf_file_gives_the_logits_of_transformers(model_type: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = config_of(model_type)
    checkpoint = open_checkpoint(write_model(tmp_path / "x.gguf", random_checkpoint(config)))
    tokens = np.random.default_rng(3).integers(0, config["vocab_size"], 60).tolist()
    graph = NumpyGraph(describe(checkpoint.config), lambda w: checkpoint.tensor(w.name).rows(0, w.shape[0]))
    reference = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file="x.gguf",
        config=AutoConfig.for_model(**config),
        dtype=torch.float32,
        attn_implementation="eager",
    ).eval()
    with torch.no_grad():
        expected = reference(torch.tensor([tokens])).logits[0].numpy()
    np.testing.assert_allclose(graph.run(tokens), expected, rtol=0, atol=TOLERANCE)
