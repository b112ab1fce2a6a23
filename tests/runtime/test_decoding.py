"""Options by name find the one algorithm that takes them."""

import importlib
import pkgutil
from typing import Any

import msgspec
import pytest

from sardonyx.runtime import strategies
from sardonyx.runtime.decoding import ASKED_BY, algorithm_of, fields
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.strategies import Algorithm
from sardonyx.runtime.strategies.beam import BeamSearch
from sardonyx.runtime.strategies.contrastive_decoding import ContrastiveDecoding
from sardonyx.runtime.strategies.contrastive_search import ContrastiveSearch
from sardonyx.runtime.strategies.diverse_beam import DiverseBeamSearch
from sardonyx.runtime.strategies.ensemble import Ensemble
from sardonyx.runtime.strategies.guidance import Guidance
from sardonyx.runtime.strategies.prompt_lookup import PromptLookup
from sardonyx.runtime.strategies.sample import Sample


@pytest.mark.parametrize(
    ("options", "algorithm"),
    [
        ({}, Sample()),
        ({"num_beams": 4}, BeamSearch(num_beams=4)),
        ({"num_beams": 4, "length_penalty": 0}, BeamSearch(num_beams=4, length_penalty=0.0)),
        ({"num_beams": 4, "num_beam_groups": 2}, DiverseBeamSearch(num_beams=4, num_beam_groups=2)),
        ({"penalty_alpha": 0.6}, ContrastiveSearch(penalty_alpha=0.6)),
        ({"guidance_scale": 2, "negative_prompt": "x"}, Guidance(guidance_scale=2.0, negative_prompt="x")),
        ({"amateur": 1}, ContrastiveDecoding(amateur=1)),
        ({"models": (1,), "mean": "geometric"}, Ensemble(models=(1,), mean="geometric")),
        ({"prompt_lookup_num_tokens": 5}, PromptLookup(prompt_lookup_num_tokens=5)),
    ],
)
def test_options_find_their_algorithm(options: dict[str, Any], algorithm: Algorithm) -> None:
    assert algorithm_of(options) == algorithm
    assert type(algorithm_of(options)) is type(algorithm)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"length_penalty": 2.0},
            "length_penalty says more of num_beams or num_beam_groups, which is not given",
        ),
        ({"negative_prompt": "x"}, "negative_prompt says more of guidance_scale, which is not given"),
        ({"num_beam_groups": 2}, "num_beam_groups needs num_beams beside it"),
        (
            {"num_beams": 2, "negative_prompt": "x"},
            "negative_prompt says more of guidance_scale, which is not given",
        ),
        (
            {"num_beams": 2, "penalty_alpha": 0.5},
            "num_beams and penalty_alpha ask for different algorithms; choose one of them",
        ),
        (
            {"guidance_scale": 2, "prompt_lookup_num_tokens": 5},
            "guidance_scale and prompt_lookup_num_tokens ask for different algorithms; choose one of them",
        ),
        ({"num_beams": 0}, "num_beams=0 is out of range: it must be at least 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as raised:
        algorithm_of(options)
    assert str(raised.value) == message


def algorithms() -> set[type[Algorithm]]:
    """Every algorithm that a file of the folder defines."""
    found = set()
    for file in pkgutil.iter_modules(strategies.__path__):
        module = importlib.import_module(f"{strategies.__name__}.{file.name}")
        found |= {
            kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Algorithm)
        }
    return found - {Algorithm}


def test_every_algorithm_can_be_asked_for_by_an_option_of_its_own() -> None:
    assert algorithms() - {Sample} == set(ASKED_BY.values())
    for option, kind in ASKED_BY.items():
        assert fields(kind)[option].required
    for kind in algorithms():
        for name, field in fields(kind).items():
            assert msgspec.inspect.type_info(field.type).extra_json_schema["description"], name
