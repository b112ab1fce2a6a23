"""Beam search gives the texts and scores of transformers' `generate`, on random weights."""

from typing import Any

import numpy as np
import pytest

from random_models import random_checkpoint
from sardonyx.export.api import Options, export
from sardonyx.models.llama import EXAMPLE
from sardonyx.runtime import LLM, SamplingParams
from sardonyx.runtime.strategies.beam import BeamSearch

pytestmark = pytest.mark.parity

NEW_TOKENS = 14
Pair = tuple[LLM, Any]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The same weights here and there. An end is likely enough to come."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    checkpoint = random_checkpoint(EXAMPLE, seed=3)
    folder = tmp_path_factory.mktemp("beam") / "artifact"
    export(checkpoint, folder, recipe="fp32", options=Options(verify=False))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**EXAMPLE), dtype=torch.float32).eval()
    model.load_state_dict({n: torch.from_numpy(a) for n, a in checkpoint.arrays.items()}, strict=False)
    model.tie_weights()
    return LLM.load(folder, threads=1), model


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("num_beams", [2, 5])
@pytest.mark.parametrize("ends", [(), (0,), (7, 11, 23)])
def test_texts_and_scores(
    pair: Pair, ends: tuple[int, ...], num_beams: int, length_penalty: float, early_stopping: Any
) -> None:
    import torch

    llm, model = pair
    prompts = np.random.default_rng(num_beams).integers(1, 60, (2, 9)).tolist()
    options = BeamSearch(num_beams=num_beams, length_penalty=length_penalty, early_stopping=early_stopping)
    params = SamplingParams(
        max_tokens=NEW_TOKENS, ignore_eos=True, stop_token_ids=ends, repetition_penalty=1.2, profile="hf"
    )
    for prompt in prompts:
        found = llm.generate_n(prompt, num_beams, params, options)
        with torch.no_grad():
            expected = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=NEW_TOKENS,
                num_beams=num_beams,
                num_return_sequences=num_beams,
                do_sample=False,
                repetition_penalty=1.2,
                eos_token_id=list(ends) or None,
                pad_token_id=63,
                return_dict_in_generate=True,
                output_scores=True,
                length_penalty=length_penalty,
                early_stopping=early_stopping,
            )
        for i, completion in enumerate(found):
            tokens = expected.sequences[i, len(prompt) :][: len(completion.tokens)].tolist()
            assert list(completion.tokens) == tokens
            rest = expected.sequences[i, len(prompt) + len(tokens) :]
            assert all(int(token) in (63, *ends) for token in rest)
            assert completion.score == pytest.approx(float(expected.sequences_scores[i]), rel=1e-5)
