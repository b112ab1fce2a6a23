"""Descriptions against configs at fault: described as they are, or refused by the field, never guessed."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from random_models import random_checkpoint
from sardonyx.export.cost_graph import cost
from sardonyx.export.weights import check_weights
from sardonyx.models import ConfigError, architectures, describe
from sardonyx.runtime.errors import SourceError

EXAMPLES: Mapping[str, Mapping[str, Any]] = {name: a.EXAMPLE for name, a in architectures().items()}
every_architecture = pytest.mark.parametrize("name", EXAMPLES)

NONSENSE = (None, -1, 0, 1.5, float("nan"), float("inf"), True, "nonsense", [], ["nonsense"], {"a": 1}, 300)
ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "activation")
SIZES = (
    "hidden_size",
    "n_embd",
    "vocab_size",
    "num_hidden_layers",
    "n_layer",
    "intermediate_size",
    "num_experts",
)


def changed(field: str, value: Any) -> Iterator[Any]:
    """Each EXAMPLE that has the field, with another value in it."""
    for name, example in EXAMPLES.items():
        if field in example:
            yield pytest.param({**example, field: value}, id=name)


@every_architecture
def test_nonsense_in_any_field_is_refused_by_name_or_says_something(name: str) -> None:
    """Whatever stands in a field, nothing but a ConfigError comes of it, and that speaks of a field."""
    words = {*EXAMPLES[name], *ACTIVATIONS, "rope_scaling", "layer_types", "head", "partial_rotary_factor"}
    words |= {"short_factor", "original_max_position_embeddings"}
    words |= {"num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"}
    for field in EXAMPLES[name]:
        for value in NONSENSE:
            config = {**EXAMPLES[name], field: value}
            said = refusal(config)
            assert said is None or any(word in said for word in words), said


def refusal(config: Mapping[str, Any]) -> str | None:
    """What is said against a config, if anything is. Whatever else it raises is raised."""
    try:
        assert describe(config).vocab > 0
    except ConfigError as error:
        return str(error)
    return None


@every_architecture
def test_a_field_that_is_needed_is_missed_by_name(name: str) -> None:
    """Sizes have no defaults: those of one released model are nobody else's."""
    for field in (
        "hidden_size",
        "n_embd",
        "vocab_size",
        "num_hidden_layers",
        "n_layer",
        "num_attention_heads",
    ):
        if field in EXAMPLES[name]:
            config = {key: value for key, value in EXAMPLES[name].items() if key != field}
            with pytest.raises(ConfigError, match=field):
                describe(config)


@pytest.mark.parametrize("config", [c for field in ACTIVATIONS for c in changed(field, "mish")])
def test_an_activation_that_is_not_known_is_refused(config: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match="mish"):
        describe(config)


def rotated() -> Iterator[str]:
    """Architectures whose EXAMPLE turns its heads, by whatever field says how."""
    for name, example in EXAMPLES.items():
        if {"rope_theta", "rotary_emb_base", "rope_scaling"} & example.keys():
            yield name


@pytest.mark.parametrize("name", [*rotated()])
def test_a_rotary_scaling_that_is_not_known_is_refused(name: str) -> None:
    for scaling in ({"rope_type": "spiral", "factor": 2.0}, {"type": "spiral"}, "spiral"):
        with pytest.raises(ConfigError, match="spiral"):
            describe({**EXAMPLES[name], "rope_scaling": scaling})


@every_architecture
def test_sizes_that_disagree_with_tensors_are_found(name: str) -> None:
    checkpoint = random_checkpoint(EXAMPLES[name])
    for field in SIZES:
        if field not in EXAMPLES[name]:
            continue
        for size in (2 * EXAMPLES[name][field], EXAMPLES[name][field] // 2):
            try:
                decoder = describe({**EXAMPLES[name], field: size})
            except ConfigError:
                continue  # it disagrees with another field already
            counted = cost(decoder)
            if counted.weights == cost(describe(EXAMPLES[name])).weights:
                assert field == "intermediate_size", (
                    "a size without effect"
                )  # of dense layers, if there are any
                continue
            with pytest.raises(SourceError, match="its tensors do not fit its config"):
                check_weights(checkpoint, counted.weights, tied=decoder.tied)


def test_a_model_type_that_is_not_known_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"model_type 'lama' is not known; nearest: llama; known: .*qwen3"):
        describe({"model_type": "lama"})
