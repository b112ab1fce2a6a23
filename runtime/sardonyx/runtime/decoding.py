"""Which options ask for which decoding algorithm, for those who have options by name: commands, servers."""

from collections.abc import Mapping
from typing import Any

import msgspec

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.strategies import Algorithm
from sardonyx.runtime.strategies.beam import BeamSearch
from sardonyx.runtime.strategies.context_shift import ContextShift
from sardonyx.runtime.strategies.contrastive_decoding import ContrastiveDecoding
from sardonyx.runtime.strategies.contrastive_search import ContrastiveSearch
from sardonyx.runtime.strategies.diverse_beam import DiverseBeamSearch
from sardonyx.runtime.strategies.ensemble import Ensemble
from sardonyx.runtime.strategies.guidance import Guidance
from sardonyx.runtime.strategies.prompt_lookup import PromptLookup
from sardonyx.runtime.strategies.sample import Sample

ASKED_BY: Mapping[str, type[Algorithm]] = {
    "num_beams": BeamSearch,
    "num_beam_groups": DiverseBeamSearch,
    "penalty_alpha": ContrastiveSearch,
    "guidance_scale": Guidance,
    "amateur": ContrastiveDecoding,
    "models": Ensemble,
    "prompt_lookup_num_tokens": PromptLookup,
    "context_shift": ContextShift,
}
"""An algorithm's other options only say more of it. Without any of these, tokens are drawn one by one."""


def algorithm_of(options: Mapping[str, Any]) -> Algorithm:
    """The one algorithm that takes all these options. Raises RequestError if there is none."""
    if not options:
        return Sample()
    asking = [option for option in ASKED_BY if option in options]
    for option in asking:
        if options.keys() <= fields(ASKED_BY[option]).keys():
            return _made(option, options)
    for option in options.keys() - asking:
        homes = [asker for asker, kind in ASKED_BY.items() if option in fields(kind)]
        if not set(homes) & set(asking):
            raise RequestError(f"{option} says more of {' or '.join(homes)}, which is not given")
    raise RequestError(f"{' and '.join(asking)} ask for different algorithms; choose one of them")


def fields(kind: type[Algorithm]) -> Mapping[str, msgspec.structs.FieldInfo]:
    """The options of an algorithm."""
    return {field.name: field for field in msgspec.structs.fields(kind)}


def _made(option: str, options: Mapping[str, Any]) -> Algorithm:
    kind = ASKED_BY[option]
    for name, field in fields(kind).items():
        if field.required and name not in options:
            raise RequestError(f"{option} needs {name} beside it")
    return kind(**options)
