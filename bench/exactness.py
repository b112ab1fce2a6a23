"""Whether an answer depends on how it came to be fed, and what it costs that it does not: answers of a normal
and of an exact engine. `python bench/exactness.py ARTIFACT [--tokens N] [--rounds N] [--temperature X]`.

Each prompt is answered alone, again (its beginning being known), with guesses (prompt lookup), and among all
others: the likeliest tokens, or with a temperature drawn ones, by the same seeds. A flip is an answer with
another token than the one alone; the tokens before it are counted, for what comes behind a flip is another
text. Engines take turns at each prompt, so that a slow minute hits both alike; speeds are medians over
prompts and rounds.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import median

from sardonyx.runtime.answer import Completion
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies.prompt_lookup import PromptLookup

GUESSES = 8
LICENSE = (Path(__file__).parent.parent / "LICENSE").read_text("utf-8")
PROMPTS = [
    "Repeat: the quick brown fox jumps over the lazy dog. The quick brown fox",
    "for i in range(10):\n    print(i)\nfor j in range(10):\n",
    "List the numbers from one to thirty in words: one, two, three,",
    "Once upon a time there was a stone that",
    "The capital of France is",
    LICENSE[2000:3500],
    LICENSE[6000:8500],
    "Q: What is an onyx?\nA: A stone.\nQ: What is a sardonyx?\nA:",
]


def first_difference(one: Completion, other: Completion) -> int | None:
    """The first place where they differ, if they do."""
    pairs = enumerate(zip(one.tokens, other.tokens, strict=True))
    return next((place for place, (a, b) in pairs if a != b), None)


Pairs = dict[tuple[str, str], list[tuple[Completion, Completion]]]
"""By engine and way of feeding: the answer alone, and that way's."""


def measure(engines: dict[str, LLM], params: SamplingParams, found: Pairs) -> None:
    """Answer every prompt in every way."""
    lookup = PromptLookup(prompt_lookup_num_tokens=GUESSES)
    alone: dict[str, list[Completion]] = defaultdict(list)
    for prompt in PROMPTS:
        for name, llm in engines.items():
            alone[name].append(one := llm.generate(prompt, params))
            found[name, "alone"].append((one, one))
        for name, llm in engines.items():
            found[name, "again, warm"].append((alone[name][-1], llm.generate(prompt, params)))
        for name, llm in engines.items():
            found[name, "with guesses"].append((alone[name][-1], llm.generate(prompt, params, lookup)))
    for name, llm in engines.items():
        streams = [llm.stream(prompt, params) for prompt in PROMPTS]
        texts = [iter(stream) for stream in streams]
        while texts:
            texts = [text for text in texts if next(text, None) is not None]
        found[name, "among others"] += zip(alone[name], (s.completion for s in streams), strict=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=0.0)
    options = parser.parse_args()
    engines = {name: LLM.load(options.artifact, exact=name == "exact") for name in ("normal", "exact")}
    found: Pairs = defaultdict(list)
    for seed in range(options.rounds):
        measure(
            engines,
            SamplingParams(
                max_tokens=options.tokens, ignore_eos=True, temperature=options.temperature, seed=seed
            ),
            found,
        )
    drawn = f", temperature {options.temperature}" if options.temperature else ""
    print(f"{engines['normal'].manifest.recipe}, {len(PROMPTS)} prompts, {options.rounds} rounds{drawn}")
    print(f"{'ENGINE':8}{'FED':16}{'FLIPS':>8}{'TOKENS':>8}{'TOKENS/S':>10}  GUESSES")
    for (name, way), pairs in sorted(found.items(), reverse=True):
        places = [first_difference(*pair) for pair in pairs]
        tokens = sum(options.tokens if place is None else place for place in places)
        speed = median(completion.usage.tokens_per_second for _, completion in pairs)
        drafted = sum(completion.usage.draft_tokens for _, completion in pairs)
        accepted = sum(completion.usage.accepted_tokens for _, completion in pairs)
        guesses = f"{accepted} of {drafted} right" if drafted else ""
        flips = len(places) - places.count(None)
        print(f"{name:8}{way:16}{flips:8}{tokens:8}{speed:10.1f}  {guesses}")


if __name__ == "__main__":
    main()
