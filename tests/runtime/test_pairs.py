"""Every option beside every other, and with every algorithm: it runs, and comes to the same beside all others
and behind a known beginning as alone; or one line says what does not go together. And no option is ignored.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations, product
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from mixed import answer_of
from sardonyx.runtime import LLM, Memory, Reuse, SamplingParams
from sardonyx.runtime.backends.scripted import ScriptedProgram
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
from sardonyx.runtime.stream import Stream
from scripted_llm import VOCABULARY, scripted_llm, scripted_llm_manifest
from toys import toy

Given = Mapping[str, Any]
Outcome = list[tuple[Any, ...]] | str

PROMPTS = (
    "one or two, one or two, one or three, ",
    *(letter * 40 for letter in "aeimquyAEIMQUY0123456789.?!"),
)
"""Longer than a block of the prefix cache, and with something to look up and to penalize."""

COLD: Given = {}
WARM: Given = {"temperature": 1.5}

END = VOCABULARY.index("<end>")
LETTERS = tuple(range(4, 30))

OPTIONS: dict[str, Given] = {
    "n": {"n": 2},
    "temperature": {"temperature": 0.9},
    "dynatemp": {"dynatemp_range": 0.8, "dynatemp_exponent": 2.0},
    "top_k": {"top_k": 2},
    "top_p": {"top_p": 0.2},
    "min_p": {"min_p": 0.6},
    "typical_p": {"typical_p": 0.2},
    "top_n_sigma": {"top_n_sigma": 0.3},
    "epsilon_cutoff": {"epsilon_cutoff": 0.05},
    "eta_cutoff": {"eta_cutoff": 0.05},
    "top_h": {"top_h": 0.2},
    "xtc": {"xtc_probability": 1.0, "xtc_threshold": 0.02},
    "mirostat 1": {"mirostat": 1, "mirostat_tau": 0.5},
    "mirostat 2": {"mirostat": 2, "mirostat_tau": 1.0, "mirostat_eta": 0.5},
    "adaptive-p": {"adaptive_target": 0.05, "adaptive_decay": 0.5},
    "repetition_penalty": {"repetition_penalty": 30.0},
    "presence_penalty": {"presence_penalty": 3.0, "repeat_last_n": 20},
    "frequency_penalty": {"frequency_penalty": -5.0},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "dry": {"dry_multiplier": 9.0, "dry_allowed_length": 1, "dry_sequence_breakers": ("!",)},
    "decay": {"exponential_decay_length_penalty": (1, 9.0)},
    "logit_bias": {"logit_bias": {9: 30.0, **dict.fromkeys(range(40, 90), -20.0)}},
    "bad_words": {"bad_words": tuple(map(chr, range(97, 110)))},
    "suppress_tokens": {"suppress_tokens": tuple(range(30, 90))},
    "begin_suppress_tokens": {"begin_suppress_tokens": tuple(range(1, 100, 2))},
    "allowed_token_ids": {"allowed_token_ids": LETTERS},
    "forced_bos_token_id": {"forced_bos_token_id": 40},
    "max_tokens": {"max_tokens": 3},
    "min_tokens": {"min_tokens": 7},
    "stop": {"stop": (*"abcdefghijklmnopqrstuvwxyz",)},
    "stop_token_ids": {"stop_token_ids": tuple(range(4, 102, 2))},
    "ignore_eos": {"ignore_eos": True},
    "logprobs": {"logprobs": 2},
    "processed logprobs": {"logprobs": 1, "logprobs_mode": "processed"},
    "prompt_logprobs": {"prompt_logprobs": 1},
    "seed": {"seed": 77},
    "hf": {"profile": "hf"},
    "vllm": {"profile": "vllm"},
    "llama.cpp": {"profile": "llama.cpp"},
}
SAYING_MORE = {"hf", "vllm", "llama.cpp"}
"""Of other options; alone they change nothing."""

ALGORITHMS = {
    "sampling": Sample(),
    "beam search": BeamSearch(num_beams=3),
    "beam search with gnmt": BeamSearch(num_beams=3, length_normalization="gnmt", early_stopping="never"),
    "beam search with first tokens": BeamSearch(num_beams=3, first_tokens=LETTERS, early_stopping=True),
    "diverse beam search": DiverseBeamSearch(num_beams=4, num_beam_groups=2),
    "contrastive search": ContrastiveSearch(penalty_alpha=0.6),
    "guidance": Guidance(guidance_scale=1.5, negative_prompt="no, "),
    "prompt lookup": PromptLookup(prompt_lookup_num_tokens=5),
    "context shift": ContextShift(context_shift=True),
    "contrastive decoding": ContrastiveDecoding(amateur=None),
    "ensemble": Ensemble(models=(None,)),
}


def made(seed: int, reuse: int = 0) -> LLM:
    """A small model with hidden states. Its texts are as good as random, but repeat themselves, and end."""
    random = toy(len(VOCABULARY), seed)

    def model(tokens: Sequence[int]) -> NDArray[np.float32]:
        logits = random(tokens)
        logits[[END, tokens[-1]]] += np.float32(4.5)
        return logits

    parrot = scripted_llm()
    program = ScriptedProgram(model, toy(6, seed + 10))
    manifest = scripted_llm_manifest(hidden_size=6)
    return LLM(manifest, parrot.tokenizer, None, program, memory=Memory(reuse=Reuse(reuse)))


OTHER = made(1)


def algorithm_of(name: str) -> Algorithm:
    algorithm = ALGORITHMS[name]
    if isinstance(algorithm, ContrastiveDecoding):
        return msgspec.structs.replace(algorithm, amateur=OTHER)
    if isinstance(algorithm, Ensemble):
        return msgspec.structs.replace(algorithm, models=(OTHER,))
    return algorithm


def begun(llm: LLM, algorithm: str, given: Given, prompt: str) -> Stream | str:
    """An answer on its way, or why there is none."""
    options = {"max_tokens": 10, "seed": 5, **given}
    n = options.pop("n", 1)
    try:
        return llm.stream_n(prompt, n, SamplingParams(**options), algorithm_of(algorithm))
    except RequestError as error:
        return str(error)


def outcome_of(started: Stream | str) -> Outcome:
    """All that came, to the last bit; or the error, at once or on the way."""
    if isinstance(started, str):
        return started
    try:
        started.wait()
    except RequestError as error:
        return str(error)
    return [(*answer_of(one), one.text, one.finish_reason) for one in started.completions]


def alone(algorithm: str, given: Given, prompt: str = PROMPTS[0]) -> Outcome:
    return outcome_of(begun(made(0), algorithm, given, prompt))


def assert_same_together(algorithm: str, asked: Sequence[Given]) -> None:
    """Each gets what it gets alone, beside all others too, whether its beginning is known or not."""
    expected = [alone(algorithm, given) for given in asked]
    llm = made(0, reuse=1 << 20)
    for _ in range(2):
        started = [begun(llm, algorithm, given, PROMPTS[0]) for given in asked]
        for given, one, outcome in zip(asked, started, expected, strict=True):
            assert outcome_of(one) == outcome, given
    assert len(llm._model.arena) == 0
    for given, outcome in zip(asked, expected, strict=True):
        if isinstance(outcome, str):
            assert_clear(outcome, algorithm, given)
        else:
            for tokens, score, *_ in outcome:
                assert score is None or math.isfinite(score), given
                assert_obeyed(tokens, given)


def assert_clear(message: str, algorithm: str, given: Given) -> None:
    """One line, that names something that was asked for."""
    names = [*given, *ALGORITHMS[algorithm].__struct_fields__]
    assert len(message.splitlines()) == 1
    assert any(name in message for name in names), message


def assert_obeyed(tokens: Sequence[int], given: Given) -> None:
    """What can be seen in the tokens."""
    first = tokens[:1]
    assert not {*tokens} & {*given.get("suppress_tokens", ())}, given
    assert not {*first} & {*given.get("begin_suppress_tokens", ())}, given
    assert {*tokens} <= {*given.get("allowed_token_ids", tokens)}, given
    assert first == (given.get("forced_bos_token_id", *first),), given
    assert given.get("min_tokens", 0) <= len(tokens) <= given.get("max_tokens", 10), given


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_with_every_option(algorithm: str) -> None:
    base = {"top_k": 4} if algorithm == "contrastive search" else {}
    assert_same_together(
        algorithm, [{**base, **given, **warmth} for given in OPTIONS.values() for warmth in (COLD, WARM)]
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_algorithm_ignores_an_option(algorithm: str) -> None:
    """It is refused, at every temperature, or changes what comes of some prompt."""
    base = {"top_k": 4} if algorithm == "contrastive search" else {}
    ways = [{**base, **warmth} for warmth in (COLD, WARM)]
    plain = cache(lambda prompt, place: alone(algorithm, ways[place], prompt))

    def heeded(given: Given) -> bool:
        refused = 0
        for prompt, (place, way) in product(PROMPTS, enumerate(ways)):
            outcome = alone(algorithm, {**way, **given}, prompt)
            refused += isinstance(outcome, str)
            if not isinstance(outcome, str) and outcome != plain(prompt, place):
                return True
        return refused == len(PROMPTS) * len(ways)

    ignored = {name for name, given in OPTIONS.items() if not heeded(given)}
    drawn = not isinstance(alone(algorithm, {**base, **WARM}), str)
    assert ignored == SAYING_MORE | (set() if drawn else {"seed"})


def test_every_option_beside_every_other() -> None:
    pairs = [{**WARM, **one, **other} for one, other in combinations(OPTIONS.values(), 2)]
    assert_same_together("sampling", pairs)
