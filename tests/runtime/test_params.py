"""What may be asked of a generation, and what a model's own defaults are taken for."""

import re
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import example, given

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.params import FOLLOWED, SamplingParams, model_defaults

NUMBERS = st.one_of(st.floats(), st.integers(-3, 3), st.integers())


def test_defaults_are_neutral() -> None:
    params = SamplingParams()
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (0, 0, 1, 0)
    assert (params.repetition_penalty, params.stop, params.max_tokens) == (1, (), None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")),
        ("max_tokens", 0),
        ("stop", ("end", "")),
    ],
)
def test_values_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"^{name}=.* is out of range: it must be .*$"):
        SamplingParams(**{name: value})
    with pytest.raises(RequestError, match=f"^{name}="):
        msgspec.structs.replace(SamplingParams(), **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("temperature", "hot", "float"),
        ("temperature", None, "float"),
        ("temperature", np.float32(1), "float"),
        ("top_k", 1.5, "int"),
        ("top_k", True, "int"),
        ("seed", "1", "int | None"),
        ("stop", "\n", "tuple[str, ...]"),
        ("stop", (1,), "tuple[str, ...]"),
        ("stop_token_ids", 2, "tuple[int, ...]"),
        ("ignore_eos", 1, "bool"),
    ],
)
def test_values_of_another_type_are_named(name: str, value: Any, kind: str) -> None:
    with pytest.raises(RequestError) as caught:
        SamplingParams(**{name: value})
    assert str(caught.value) == f"{name}={value!r} is not of type {kind}"


def test_lists_become_tuples_and_whole_numbers_floats() -> None:
    params = SamplingParams(stop=["a", "b"], stop_token_ids=[1], temperature=1)  # type: ignore[arg-type]
    assert (params.stop, params.stop_token_ids) == (("a", "b"), (1,))
    assert isinstance(params.temperature, float)


@given(st.sampled_from([*FOLLOWED.values()]), NUMBERS)
@example("presence_penalty", 2**53 + 1)
def test_numbers_are_taken_or_refused_and_never_changed(name: str, value: float) -> None:
    try:
        params = SamplingParams(**{name: value})  # type: ignore[arg-type]
    except RequestError as refusal:
        message = str(refusal)
        assert re.fullmatch(f"{name}=.* is (not of type|out of range).*", message)
    else:
        assert getattr(params, name) == value


CONTEXT = 100
SAMPLED = {"do_sample": True}


@pytest.mark.parametrize(
    ("generation", "params"),
    [
        ({}, {}),
        (SAMPLED, {"temperature": 1.0}),
        (
            {**SAMPLED, "temperature": 0.6, "top_k": 64, "top_p": 0.9, "min_p": 0.1},
            {"temperature": 0.6, "top_k": 64, "top_p": 0.9, "min_p": 0.1},
        ),
        ({**SAMPLED, "temperature": None, "top_k": 0, "top_p": 1}, {"temperature": 1.0}),
        ({"do_sample": False, "temperature": 0.6, "top_k": 64}, {}),
        ({"temperature": 0.6}, {}),
        ({"do_sample": "yes", "temperature": 0.6}, {}),
        ({"do_sample": False, "repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"max_new_tokens": 50}, {"max_tokens": 50}),
        (
            {"min_new_tokens": 5, "bad_words_ids": [[1], [2, 3]]},
            {"min_tokens": 5, "bad_words": ((1,), (2, 3))},
        ),
        ({**SAMPLED, "typical_p": 0.9, "top_h": 0.4}, {"temperature": 1.0, "typical_p": 0.9, "top_h": 0.4}),
        ({"typical_p": 0.9, "suppress_tokens": [1, 2]}, {"suppress_tokens": (1, 2)}),
        ({"max_new_tokens": None, "max_length": CONTEXT, "num_beams": 1, "suppress_tokens": []}, {}),
        ({"eos_token_id": [1, 2], "transformers_version": "4.57", "use_cache": True}, {}),
    ],
)
def test_a_models_own_defaults(generation: dict[str, Any], params: dict[str, Any]) -> None:
    assert model_defaults(generation, CONTEXT) == (SamplingParams(**params), {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beams", 4),
        ("no_repeat_ngram_size", -1),
        ("forced_bos_token_id", 1),
        ("max_length", CONTEXT - 1),
        ("max_new_tokens", 0),
        ("suppress_tokens", [-1]),
        ("top_k", -1),
        ("top_k", 50.5),
        ("top_p", "high"),
        ("temperature", -1),
        ("repetition_penalty", 0),
        ("unheard_of", True),
    ],
)
def test_what_is_not_followed_is_handed_back(name: str, value: Any) -> None:
    params, ignored = model_defaults({**SAMPLED, name: value}, CONTEXT)
    assert params == SamplingParams(temperature=1.0)
    assert ignored == {name: value}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


def listed(value: Any) -> Any:
    """A value as JSON has it."""
    return [*map(listed, value)] if isinstance(value, tuple) else value


@given(st.dictionaries(st.sampled_from(["num_beams", "max_length", *FOLLOWED]), JSON))
def test_every_setting_is_followed_or_handed_back_or_off(generation: dict[str, Any]) -> None:
    params, ignored = model_defaults({**generation, "do_sample": True}, CONTEXT)
    for name, value in generation.items():
        if name in FOLLOWED and value is not None and name not in ignored:
            assert listed(getattr(params, FOLLOWED[name])) == value
