"""Every option of every decoding algorithm on the command line. Models are given by name, as elsewhere."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sardonyx.runtime.cli.options import Given, Option

if TYPE_CHECKING:
    from sardonyx.runtime.llm import LLM
    from sardonyx.runtime.prompts import Prompt
    from sardonyx.runtime.strategies import Algorithm

GROUP = "Algorithms (else tokens are drawn one by one)"


def _option(
    field: str, kind: Any, text: str, shown: bool = False, metavar: str = "", name: str = ""
) -> Option:
    return Option(field, kind, text, GROUP, shown, metavar, name)


ALGORITHM_OPTIONS = [
    _option("num_beams", int, "beam search: N texts grow side by side", shown=True),
    _option("length_penalty", float, "beam search: above 0 favours long texts, below short ones"),
    _option("length_normalization", str, "beam search: how length counts, hf or gnmt", metavar="NAME"),
    _option("early_stopping", bool | str, "beam search: when enough have ended: true, false or never"),
    _option("first_tokens", tuple[int, ...], "beam search: a token to begin with"),
    _option("num_beam_groups", int, "diverse beam search: N groups of beams that differ", shown=True),
    _option("diversity_penalty", float, "diverse beam search: the cost of another group's word"),
    _option("penalty_alpha", float, "contrastive search among --top-k: 0.6, say", shown=True),
    _option("guidance_scale", float, "guidance: above 1 follows the prompt more closely", shown=True),
    _option("negative_prompt", str, "guidance: the prompt to lead away from", shown=True),
    _option("amateur", str, "contrastive decoding: unlike this lesser model", shown=True, metavar="MODEL"),
    _option("plausibility", float, "contrastive decoding: least share of the top p"),
    _option(
        "models", tuple[str, ...], "decide together with it", shown=True, metavar="MODEL", name="ensemble"
    ),
    _option("weights", tuple[float, ...], "ensemble: what a model counts, MODEL's first"),
    _option("mean", str, "ensemble: arithmetic or geometric", metavar="NAME"),
    _option("prompt_lookup_num_tokens", int, "guess N tokens from the text, to be faster", shown=True),
    _option("max_matching_ngram_size", int, "prompt lookup: tokens that have to match"),
    _option("context_shift", bool, "forget the middle when the context is full", shown=True),
    _option("attention_sinks", int, "context shift: first tokens that stay"),
]
"""Their names and defaults are those of `sardonyx.runtime.strategies`."""


def check(given: Given) -> None:
    """Raises RequestError, before any model is loaded, for options that no algorithm takes together."""
    if given:
        from sardonyx.runtime.decoding import algorithm_of

        algorithm_of(given)


def algorithm(given: Given, load: Callable[[str], "LLM"], prompt: Callable[[str], "Prompt"]) -> "Algorithm":
    """The algorithm that the options ask for, its models loaded. `prompt` makes one of a text."""
    from sardonyx.runtime.decoding import algorithm_of

    options = dict(given)
    if "amateur" in options:
        options["amateur"] = load(options["amateur"])
    if "models" in options:
        options["models"] = tuple(map(load, options["models"]))
    if "negative_prompt" in options:
        options["negative_prompt"] = prompt(options["negative_prompt"])
    return algorithm_of(options)
