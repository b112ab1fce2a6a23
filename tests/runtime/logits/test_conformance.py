"""Each profile gives the distributions of its definition, on vectors that others may be tested with too."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import slow_sampling
from logit_rows import softmax
from sardonyx.runtime.logits import Setting
from sardonyx.runtime.logits.pipeline import Picker
from sardonyx.runtime.logits.profiles import PROFILES
from sardonyx.runtime.params import SamplingParams

VECTORS = {name: json.loads((slow_sampling.FOLDER / f"{name}.json").read_text("utf-8")) for name in PROFILES}
CASES = [
    pytest.param(name, vector, id=f"{name} {vector['options']} {len(vector['answer'])}")
    for name, vectors in VECTORS.items()
    for vector in vectors
]


def drawn_from(params: SamplingParams, prompt: list[int], answer: list[int], row: list[float]) -> np.ndarray:
    """Probabilities of all tokens at the place behind a text, `[vocab]`. Token 0 ends an answer."""
    picker = Picker(params, 0, Setting(len(prompt), (0,), len(row)))
    position = len(prompt) + len(answer)
    candidates = picker.shaped([*prompt, *answer], np.float32(row), position)
    found = np.zeros(len(row))
    found[candidates.ids] = softmax(candidates.logits)
    return found


def params_of(profile: str, options: dict[str, Any]) -> SamplingParams:
    bias = {int(token): amount for token, amount in options.get("logit_bias", {}).items()}
    breakers = {"dry_sequence_breakers": ()} if "dry_multiplier" in options else {}
    return SamplingParams(**{"profile": profile, **breakers, **options, "logit_bias": bias})


@pytest.mark.parametrize(("profile", "vector"), CASES)
def test_a_profile_conforms(profile: str, vector: dict[str, Any]) -> None:
    params = params_of(profile, vector["options"])
    found = drawn_from(params, vector["prompt"], vector["answer"], vector["logits"])
    expected = np.zeros_like(found)
    for token, probability in vector["distribution"].items():
        expected[int(token)] = probability
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_vectors_are_what_the_definitions_give() -> None:
    for name, vectors in VECTORS.items():
        assert vectors == slow_sampling.vectors(name), "run: python tests/slow_sampling.py"


def test_profiles_differ_where_systems_do() -> None:
    """The same request, four distributions: no two profiles agree on all vectors that both have."""
    answers = {
        name: {json.dumps(v["options"]) + str(v["logits"]): v["distribution"] for v in vectors}
        for name, vectors in VECTORS.items()
    }
    for one in PROFILES:
        for other in PROFILES:
            shared = answers[one].keys() & answers[other].keys()
            assert one == other or any(answers[one][key] != answers[other][key] for key in shared)


amounts = {
    "temperature": st.floats(0.3, 3),
    "top_k": st.integers(1, 30),
    "top_p": st.floats(0.05, 0.99),
    "min_p": st.floats(0.001, 0.9),
    "typical_p": st.floats(0.05, 0.99),
    "top_n_sigma": st.floats(0.1, 3),
    "top_h": st.floats(0.05, 0.95),
    "epsilon_cutoff": st.floats(0.001, 0.3),
    "eta_cutoff": st.floats(0.001, 0.3),
    "repetition_penalty": st.floats(0.5, 2),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "repeat_last_n": st.integers(1, 12),
    "no_repeat_ngram_size": st.integers(1, 4),
    "dry_multiplier": st.floats(0.1, 2),
    "min_tokens": st.integers(1, 9),
    "suppress_tokens": st.lists(st.integers(0, 5), min_size=1, max_size=3),
    "logit_bias": st.dictionaries(st.integers(0, 29), st.floats(-5, 5), max_size=4),
}
texts = st.lists(st.integers(0, 3), max_size=20)


@given(
    st.sampled_from(sorted(PROFILES)),
    st.fixed_dictionaries({}, optional=amounts),
    texts,
    texts,
    st.integers(0, 9999),
)
def test_any_request_is_shaped_as_defined(
    profile: str, options: dict[str, Any], prompt: list[int], answer: list[int], seed: int
) -> None:
    supported = {*PROFILES[profile].order, *PROFILES[profile].takes}
    options = {"temperature": 1.0, **{name: value for name, value in options.items() if name in supported}}
    if not {"repetition_penalty", "presence_penalty", "frequency_penalty"} & {*options}:
        options.pop("repeat_last_n", None)
    row = np.random.default_rng(seed).normal(0, 2, 30).astype(np.float32).tolist()
    params = params_of(profile, options)
    found = drawn_from(params, prompt, answer, row)
    expected = np.zeros_like(found)
    for token, probability in slow_sampling.distribution(profile, options, prompt, answer, row).items():
        expected[token] = probability
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
