"""The pipeline shapes a distribution as the logits processors of transformers do, in their order."""

from typing import Any

import numpy as np
import pytest

from sardonyx.runtime.logits import pipeline
from sardonyx.runtime.params import SamplingParams

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7},
        {"temperature": 1.5, "repetition_penalty": 1.3},
        {"temperature": 1.0, "top_k": 40},
        {"temperature": 0.8, "top_p": 0.9},
        {"temperature": 2.0, "min_p": 0.05},
        {"temperature": 0.9, "top_k": 50, "top_p": 0.95, "min_p": 0.02, "repetition_penalty": 1.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_distributions_equal_those_of_transformers(options: dict[str, Any], spread: float) -> None:
    import torch
    from transformers import LogitsProcessorList
    from transformers.generation import logits_process as theirs

    random = np.random.default_rng(7)
    row = random.normal(0, spread, 5000).astype(np.float32)
    sequence = random.integers(0, 5000, 300).tolist()
    makers = {
        "repetition_penalty": theirs.RepetitionPenaltyLogitsProcessor,
        "temperature": theirs.TemperatureLogitsWarper,
        "top_k": theirs.TopKLogitsWarper,
        "top_p": theirs.TopPLogitsWarper,
        "min_p": theirs.MinPLogitsWarper,
    }
    chain = LogitsProcessorList([make(options[name]) for name, make in makers.items() if name in options])
    expected = torch.softmax(chain(torch.tensor([sequence]), torch.tensor(row)[None]), -1)[0].numpy()

    ids, logits = pipeline(SamplingParams(**options))(sequence, row)
    weights = np.exp(logits - logits.max())
    got = np.zeros_like(expected)
    got[ids] = weights / weights.sum()
    np.testing.assert_array_equal(got > 0, expected > 0)
    np.testing.assert_allclose(got, expected, rtol=2e-5)
