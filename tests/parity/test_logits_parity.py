"""The profile hf shapes a distribution as the processors of transformers, assembled by it, do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sardonyx.runtime.logits import Setting, pipeline
from sardonyx.runtime.params import SamplingParams

pytestmark = pytest.mark.parity

VOCAB, END = 5000, 7
THEIR_NAMES = {"min_tokens": "min_new_tokens", "bad_words": "bad_words_ids", "logit_bias": "sequence_bias"}
VECTORS = Path(__file__).parent.parent / "runtime" / "conformance" / "hf.json"


def theirs(
    options: dict[str, Any], prompt: list[int], answer: list[int], row: np.ndarray, end: int
) -> np.ndarray:
    """What transformers draws the next token from, `[vocab]`."""
    import torch
    from transformers import GenerationConfig
    from transformers.generation import GenerationMixin

    given = {THEIR_NAMES.get(name, name): value for name, value in options.items()}
    if "sequence_bias" in given:
        given["sequence_bias"] = {(token,): float(bias) for token, bias in given["sequence_bias"].items()}
    if "bad_words_ids" in given:
        given["bad_words_ids"] = [[*word] for word in given["bad_words_ids"]]
    allowed = given.pop("allowed_token_ids", None)
    sampled = given["temperature"] > 0
    config = GenerationConfig(
        **{"top_k": 0, **given, "do_sample": True, "temperature": given["temperature"] or 1.0}
    )
    config.do_sample = sampled
    config._eos_token_tensor = torch.tensor([end])
    processors = GenerationMixin()._get_logits_processor(
        config,
        input_ids_seq_length=len(prompt),
        prefix_allowed_tokens_fn=None if allowed is None else lambda *_: [*allowed],
        device="cpu",
    )
    logits = processors(torch.tensor([[*prompt, *answer]]), torch.tensor(row)[None])[0]
    if sampled:
        return torch.softmax(logits, -1).numpy()
    return np.eye(len(row))[int(logits.argmax())]


def ours(
    options: dict[str, Any], prompt: list[int], answer: list[int], row: np.ndarray, end: int
) -> np.ndarray:
    """The same of our own."""
    shape = pipeline(SamplingParams(profile="hf", **options), Setting(len(prompt), (end,), len(row)))
    ids, logits = shape([*prompt, *answer], row)
    weights = np.exp(logits - logits.max())
    found = np.zeros(len(row))
    found[ids] = weights / weights.sum()
    return found


OPTIONS = [
    {"temperature": 0.0},
    {"temperature": 0.0, "repetition_penalty": 1.8, "no_repeat_ngram_size": 2},
    {"temperature": 0.7},
    {"temperature": 1.5, "repetition_penalty": 1.3},
    {"temperature": 1.0, "top_k": 40},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 2.0, "min_p": 0.05},
    {"temperature": 0.9, "top_k": 50, "top_p": 0.95, "min_p": 0.02, "repetition_penalty": 1.1},
    {"temperature": 1.0, "typical_p": 0.7},
    {"temperature": 1.4, "typical_p": 0.2, "top_k": 300},
    {"temperature": 1.0, "epsilon_cutoff": 0.001},
    {"temperature": 1.3, "eta_cutoff": 0.003},
    {"temperature": 1.0, "epsilon_cutoff": 0.9},
    {"temperature": 1.0, "no_repeat_ngram_size": 1},
    {"temperature": 1.0, "no_repeat_ngram_size": 3},
    {"temperature": 1.0, "min_tokens": 12},
    {"temperature": 1.0, "exponential_decay_length_penalty": (4, 1.3)},
    {"temperature": 1.0, "suppress_tokens": (1, 2, 3, 4)},
    {"temperature": 1.0, "begin_suppress_tokens": (1, 2, 3, 4)},
    {"temperature": 1.0, "logit_bias": {3: 4.0, 1: -2.5}, "repetition_penalty": 1.4},
    {"temperature": 1.0, "bad_words": ((5,), (0, 1), (1, 2, 0, 3))},
    {"temperature": 1.0, "allowed_token_ids": (1, 2, 3, 5, 8, 13), "top_p": 0.8},
]


def compare(
    options: dict[str, Any], prompt: list[int], answer: list[int], row: np.ndarray, end: int = END
) -> None:
    expected = theirs(options, prompt, answer, row, end)
    found = ours(options, prompt, answer, row, end)
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("spread", [0.5, 3.0])
@pytest.mark.parametrize("answered", [0, 9])
def test_distributions_equal_those_of_transformers(
    options: dict[str, Any], spread: float, answered: int
) -> None:
    random = np.random.default_rng(7)
    row = random.normal(0, spread, VOCAB).astype(np.float32)
    prompt = [*random.integers(0, VOCAB, 300).tolist(), 0, 1, 2, 0, 1]
    compare(options, prompt, [0, 1, 2, 0, 3, 0, 1, 2, 0][:answered], row)


def test_any_request_equals_that_of_transformers() -> None:
    """Any of the options, with random values, on random texts of few letters.

    Where a forbidden end is to become likelier, transformers makes NaN of it, and here it stays forbidden.
    """
    random = np.random.default_rng(11)
    values = {
        "repetition_penalty": lambda: float(random.uniform(0.6, 2)),
        "no_repeat_ngram_size": lambda: int(random.integers(2, 5)),
        "bad_words": lambda: tuple(
            map(tuple, random.integers(0, 4, (3, int(random.integers(1, 4)))).tolist())
        ),
        "min_tokens": lambda: int(random.integers(1, 12)),
        "exponential_decay_length_penalty": lambda: (
            int(random.integers(0, 9)),
            float(random.uniform(1, 1.6)),
        ),
        "suppress_tokens": lambda: tuple(random.integers(0, 9, 3).tolist()),
        "begin_suppress_tokens": lambda: tuple(random.integers(0, 9, 3).tolist()),
        "logit_bias": lambda: {int(token): float(random.normal(0, 4)) for token in random.integers(1, 90, 4)},
        "top_k": lambda: int(random.integers(1, 300)),
        "top_p": lambda: float(random.uniform(0.1, 0.99)),
        "min_p": lambda: float(random.uniform(0.001, 0.3)),
        "typical_p": lambda: float(random.uniform(0.1, 0.99)),
        "epsilon_cutoff": lambda: float(random.uniform(0.0001, 0.05)),
        "eta_cutoff": lambda: float(random.uniform(0.0001, 0.05)),
    }
    compared = 0
    while compared < 300:
        options = {"temperature": float(random.uniform(0.3, 2))}
        options |= {name: value() for name, value in values.items() if random.random() < 0.3}
        row = random.normal(0, random.uniform(0.5, 4), 500).astype(np.float32)
        prompt = random.integers(0, 4, int(random.integers(5, 40))).tolist()
        answer = random.integers(0, 4, int(random.integers(0, 15))).tolist()
        if {"exponential_decay_length_penalty", "min_tokens"} <= {*options}:
            continue
        compare(options, prompt, answer, row)
        compared += 1


def test_the_conformance_vectors_are_those_of_transformers() -> None:
    """Those that are not, are of options that transformers does not have in this version, or of its oddity:
    it forces a first token only behind a prompt of one token.
    """
    compared = 0
    for vector in json.loads(VECTORS.read_text("utf-8")):
        options = dict(vector["options"])
        if "top_h" in options or "forced_bos_token_id" in options:
            continue
        if "logit_bias" in options:
            options["logit_bias"] = {int(token): bias for token, bias in options["logit_bias"].items()}
        expected = np.zeros(len(vector["logits"]))
        for token, probability in vector["distribution"].items():
            expected[int(token)] = probability
        found = theirs(options, vector["prompt"], vector["answer"], np.float32(vector["logits"]), 0)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-9)
        compared += 1
    assert compared > 80


def test_a_first_token_is_forced_behind_a_prompt_of_one_token() -> None:
    row = np.random.default_rng(0).normal(0, 1, 50).astype(np.float32)
    for answer in ([], [3], [3, 4]):
        compare({"temperature": 1.0, "forced_bos_token_id": 5}, [9], answer, row)
