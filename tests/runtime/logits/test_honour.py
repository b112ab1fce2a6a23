"""Requests that cannot be honoured are refused, naming what does not go together."""

import re
from typing import Any

import pytest

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.logits import Setting, make_picker
from sardonyx.runtime.logits.profiles import OPENAI, PROFILES
from sardonyx.runtime.logits.steps import FEEDBACK, PROCESSORS, TRUNCATIONS
from sardonyx.runtime.params import SamplingParams

SETTING = Setting(4, (2,), 50)
VALUES: dict[str, Any] = {
    "logit_bias": {1: 1.0},
    "no_repeat_ngram_size": 2,
    "bad_words": ((1,),),
    "min_tokens": 3,
    "exponential_decay_length_penalty": (3, 1.1),
    "suppress_tokens": (1,),
    "begin_suppress_tokens": (1,),
    "allowed_token_ids": (1, 2),
    "forced_bos_token_id": 1,
    "top_k": 3,
    "mirostat": 2,
    "repeat_last_n": 9,
}


def given(name: str, profile: str = "openai") -> SamplingParams:
    """A request for one thing."""
    more = {"repetition_penalty": 1.1} if name == "repeat_last_n" else {}
    breakers = {"dry_sequence_breakers": ()} if name == "dry_multiplier" else {}
    value = {name: VALUES.get(name, 0.5)}
    return SamplingParams(**{"temperature": 1.0, "profile": profile, **more, **breakers, **value})


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", [*OPENAI.order, *OPENAI.takes])
def test_a_profile_takes_what_it_has_and_refuses_the_rest_by_name(profile: str, name: str) -> None:
    if name in PROFILES[profile].order or name in PROFILES[profile].takes:
        make_picker(given(name, profile), 0, SETTING)
        return
    with pytest.raises(RequestError, match=f"^profile='{profile}' has no {name}; leave {name}="):
        make_picker(given(name, profile), 0, SETTING)


def test_every_step_has_its_place_in_the_default_profile() -> None:
    assert {*PROCESSORS, *TRUNCATIONS, *FEEDBACK, "temperature"} == {*OPENAI.order}
    for profile in PROFILES.values():
        assert {*profile.order} <= {*OPENAI.order}
        assert len(profile.order) == len({*profile.order})
        places = [
            [name in kind for kind in (PROCESSORS, {"temperature", *TRUNCATIONS}, FEEDBACK)].index(True)
            for name in profile.order
        ]
        assert places == sorted(places)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"mirostat": 2}, "mirostat=2 has no effect at temperature=0"),
    ({"adaptive_target": 0.5}, "adaptive_target=0.5 has no effect at temperature=0"),
    ({"xtc_probability": 0.5}, "xtc_probability=0.5 has no effect at temperature=0"),
    ({"temperature": 1, "mirostat": 2, "top_k": 5}, "mirostat=2 takes the place of top_k=5; set top_k=0"),
    (
        {"temperature": 1, "mirostat": 1, "top_p": 0.9},
        "mirostat=1 takes the place of top_p=0.9; set top_p=1.0",
    ),
    (
        {"temperature": 1, "mirostat": 1, "dynatemp_range": 0.5},
        "mirostat=1 takes the place of dynatemp_range=0.5",
    ),
    (
        {"temperature": 1, "mirostat": 1, "adaptive_target": 0.5},
        "mirostat=1 takes the place of adaptive_target=0.5",
    ),
    (
        {"temperature": 1, "mirostat": 1, "repetition_penalty": 1.5, "profile": "llama.cpp"},
        "profile='llama.cpp' has no repetition_penalty beside mirostat; leave repetition_penalty=1.5 out",
    ),
    (
        {"forced_bos_token_id": 5, "suppress_tokens": (5,)},
        "forced_bos_token_id=5 is forbidden by suppress_tokens=(5,)",
    ),
    (
        {"forced_bos_token_id": 5, "allowed_token_ids": (6,)},
        "forced_bos_token_id=5 is forbidden by allowed_token_ids=(6,)",
    ),
    (
        {"forced_bos_token_id": 5, "bad_words": ((5,),)},
        "forced_bos_token_id=5 is forbidden by bad_words=((5,),)",
    ),
    ({"forced_bos_token_id": 2, "min_tokens": 1}, "forced_bos_token_id=2 is forbidden by min_tokens=1"),
    ({"logprobs": 51}, "logprobs=51 is more than the vocabulary of 50"),
    ({"suppress_tokens": (50,)}, "suppress_tokens: token 50 is outside the vocabulary of 50"),
    ({"logit_bias": {99: 1.0}}, "logit_bias: token 99 is outside the vocabulary of 50"),
    ({"bad_words": ((1, 50),)}, "bad_words: token 50 is outside the vocabulary of 50"),
    ({"forced_bos_token_id": 50}, "forced_bos_token_id: token 50 is outside the vocabulary of 50"),
    # Refused before anything is known of the model:
    ({"xtc_threshold": 0.2}, "xtc_threshold=0.2 only says more of xtc_probability, which is off"),
    ({"mirostat_tau": 3.0}, "mirostat_tau=3.0 only says more of mirostat, which is off"),
    ({"dry_base": 2.0}, "dry_base=2.0 only says more of dry_multiplier, which is off"),
    (
        {"repeat_last_n": 5},
        "repeat_last_n=5 only says more of repetition_penalty or presence_penalty or frequency_penalty,",
    ),
    ({"logprobs_mode": "processed"}, "logprobs_mode='processed' only says more of logprobs, which is off"),
    ({"min_tokens": 5, "max_tokens": 4}, "min_tokens=5 is above max_tokens=4"),
    (
        {"exponential_decay_length_penalty": (1, 1.1), "ignore_eos": True},
        "exponential_decay_length_penalty makes the model's own end likelier, and ignore_eos ignores it",
    ),
    ({"repeat_last_n": 0, "presence_penalty": 1.0}, "repeat_last_n=0 is out of range: it must be -1"),
    ({"logit_bias": {1: float("nan")}}, "logit_bias={1: nan} is out of range: it must be finite"),
    ({"presence_penalty": float("inf")}, "presence_penalty=inf is out of range: it must be finite"),
    (
        {"profile": "ollama"},
        "profile='ollama' is out of range: it must be one of openai, hf, vllm, llama.cpp",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_does_not_go_together_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=f"^{re.escape(message)}"):
        make_picker(SamplingParams(**options), 0, SETTING)


def test_an_end_that_the_model_does_not_have_cannot_become_likelier() -> None:
    params = SamplingParams(exponential_decay_length_penalty=(3, 1.1))
    with pytest.raises(RequestError, match="the model has no end token"):
        make_picker(params, 0, Setting(4, (), 50))


@pytest.mark.parametrize("name", ["presence_penalty", "min_tokens", "forced_bos_token_id"])
def test_who_counts_the_answer_has_to_be_told_where_it_begins(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has to know where the answer begins"):
        make_picker(given(name), 0)


def test_texts_have_to_be_turned_into_tokens_before() -> None:
    with pytest.raises(ValueError, match="'mud' is a text"):
        make_picker(SamplingParams(bad_words=("mud",)), 0, SETTING)
