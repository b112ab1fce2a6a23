"""Requests of every kind, asked for at random moments in one engine: each must get what it gets alone."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from sardonyx.runtime import LLM, Completion, SamplingParams, engine
from sardonyx.runtime.scheduler import Plan, plan
from sardonyx.runtime.strategies import Algorithm
from sardonyx.runtime.strategies.beam import BeamSearch
from sardonyx.runtime.strategies.contrastive_decoding import ContrastiveDecoding
from sardonyx.runtime.strategies.contrastive_search import ContrastiveSearch
from sardonyx.runtime.strategies.diverse_beam import DiverseBeamSearch
from sardonyx.runtime.strategies.ensemble import Ensemble
from sardonyx.runtime.strategies.guidance import Guidance
from sardonyx.runtime.strategies.prompt_lookup import PromptLookup
from sardonyx.runtime.strategies.sample import Sample
from sardonyx.runtime.stream import Stream

Case = tuple[Algorithm, SamplingParams, int]
"""The algorithm, what shapes its draws, and how many answers."""

TOKENS = 12


def params(**given: Any) -> SamplingParams:
    return SamplingParams(max_tokens=TOKENS, seed=5, **given)


def cases(amateur: LLM) -> dict[str, Case]:
    """Every algorithm, drawing or not, for one answer or several."""
    beams, groups = BeamSearch(num_beams=3), DiverseBeamSearch(num_beams=4, num_beam_groups=2)
    return {
        "greedy": (Sample(), params(), 1),
        "sampling": (Sample(), params(temperature=1.0, top_p=0.9, logprobs=1), 1),
        "sampling with penalties": (Sample(), params(temperature=1.3, repetition_penalty=1.2), 1),
        "several": (Sample(), params(temperature=1.0), 4),
        "mirostat": (Sample(), params(temperature=1.0, mirostat=2), 1),
        "beams": (beams, params(), 3),
        "beams of short texts": (BeamSearch(num_beams=4, length_penalty=-1.0), params(), 1),
        "beam sampling": (beams, params(temperature=0.9), 2),
        "groups": (groups, params(), 4),
        "contrastive search": (ContrastiveSearch(penalty_alpha=0.6), params(top_k=4), 1),
        "guidance": (Guidance(guidance_scale=1.8, negative_prompt="no"), params(temperature=0.8), 1),
        "contrastive decoding": (ContrastiveDecoding(amateur=amateur), params(temperature=0.7), 1),
        "ensemble": (Ensemble(models=(amateur,)), params(temperature=0.9), 1),
        "lookup": (PromptLookup(prompt_lookup_num_tokens=6), params(temperature=0.7), 1),
        "lookup, greedy": (PromptLookup(prompt_lookup_num_tokens=6), params(), 1),
        "prompt logprobs": (beams, params(prompt_logprobs=2), 1),
    }


@dataclass(frozen=True)
class Ask:
    """One request."""

    name: str
    prompt: Sequence[int]
    case: Case
    priority: int

    def begin(self, llm: LLM) -> Stream:
        algorithm, shape, n = self.case
        return llm.stream_n(self.prompt, n, shape, algorithm, self.priority)

    def alone(self, llm: LLM) -> list[Any]:
        """All that it gets, to the last bit of every figure."""
        stream = self.begin(llm)
        stream.wait()
        return answers_of(stream)


def answers_of(stream: Stream) -> list[Any]:
    return [answer_of(completion) for completion in stream.completions]


def answer_of(completion: Completion) -> tuple[Any, ...]:
    return completion.tokens, completion.score, completion.logprobs, completion.prompt_logprobs


def asks(amateur: LLM, lengths: Sequence[int], vocab: int) -> list[Ask]:
    """A request for each prompt length, of all kinds in turn. Prompts repeat themselves, for the guesses."""
    rng = random.Random(7)
    kinds = list(cases(amateur).items())
    made = []
    for place, length in enumerate(lengths):
        name, case = kinds[place % len(kinds)]
        words = [[rng.randrange(4, vocab) for _ in range(rng.randint(3, 30))] for _ in range(4)]
        prompt: list[int] = []
        while len(prompt) < length:
            prompt += rng.choice(words)
        made.append(Ask(f"{place}: {name}, {length} tokens", prompt[:length], case, rng.randint(-1, 1)))
    return made


@dataclass(frozen=True)
class Outcome:
    """What all got, whom we have cancelled, and how often one had to give its rows up and came back."""

    got: Mapping[str, list[Any]]
    cancelled: frozenset[str]
    driven_out: int


def together(llm: LLM, asked: Sequence[Ask], seed: int, leave: int = 0) -> Outcome:
    """All of them, joining at random moments; so many leave again, at others."""
    rng = random.Random(seed)
    waiting = rng.sample(asked, len(asked))
    leaving = {ask.name for ask in rng.sample(asked, leave)}
    running: dict[str, Stream] = {}
    cancelled, plans = set(), []

    def noted(*given: Any) -> Plan:
        plans.append(plan(*given))
        return plans[-1]

    with patch.object(engine, "plan", noted):
        while waiting or not all(stream._task.done for stream in running.values()):
            if waiting and rng.random() < 0.3:
                ask = waiting.pop()
                running[ask.name] = ask.begin(llm)
            for name in sorted(leaving & running.keys() - cancelled):
                if rng.random() < 0.1 and not running[name]._task.done:
                    running[name].cancel()
                    cancelled.add(name)
            llm._engine.step()
    for stream in running.values():
        assert stream._task.error is None
    got = {name: answers_of(stream) for name, stream in running.items()}
    return Outcome(got, frozenset(cancelled), sum(len(made.leave) for made in plans))


def assert_as_alone(outcome: Outcome, expected: Mapping[str, list[Any]]) -> None:
    """To the bit; who was cancelled got the beginning."""
    for name, answers in outcome.got.items():
        if name not in outcome.cancelled:
            assert answers == expected[name], name
            continue
        for (tokens, *_), (whole, *_) in zip(answers, expected[name], strict=False):
            assert tokens == whole[: len(tokens)], name
