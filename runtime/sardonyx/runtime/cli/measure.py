"""Measuring a loaded model, for `sardonyx bench`.

It knows nothing of how the model runs: it asks for answers and reads their usage.
"""

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import sleep
from typing import TYPE_CHECKING

from sardonyx.runtime.errors import RequestError

if TYPE_CHECKING:
    from sardonyx.runtime.answer import Usage
    from sardonyx.runtime.llm import LLM


PAUSE_S = 0.1
"""Between turns of models: after an answer its threads look for work for a while, at the cost of others."""


@dataclass(frozen=True)
class Speed:
    """Medians over the repeats of one prompt length. `outside_share` is of the time of the whole request; the
    ratios are to the first model of several, turn by turn.
    """

    prompt_tokens: int
    new_tokens: int
    first_token_s: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    outside_share: float
    prefill_ratio: float
    decode_ratio: float


def measure(
    llm: "LLM",
    lengths: Sequence[int],
    new_tokens: int,
    repeats: int,
    on_run: Callable[[int, int], None],
    seed: int = 0,
) -> list[Speed]:
    """Time every prompt length of one model. See `measure_all`."""
    (speeds,) = measure_all([llm], Work(lengths, new_tokens, repeats, seed), on_run)
    return speeds


@dataclass(frozen=True)
class Work:
    """Random prompts of each length, by `seed`: give another to the same LLM, which would know the old ones.
    Each is answered with so many new tokens, and there are so many of each length.
    """

    lengths: Sequence[int]
    new_tokens: int
    repeats: int
    seed: int = 0


def measure_all(llms: Sequence["LLM"], work: Work, on_run: Callable[[int, int], None]) -> list[list[Speed]]:
    """The speeds of each model, by prompt length. All answer the same prompts in turns, so that a slow minute
    hits all alike. One short request warms each up first. `on_run` is told the runs done and the runs in all.

    Raises RequestError when a length does not fit into a context.
    """
    from sardonyx.runtime.params import SamplingParams

    context = min(llm.context_length for llm in llms)
    if max(work.lengths) + work.new_tokens > context:
        raise RequestError(
            f"{max(work.lengths)} prompt tokens and {work.new_tokens} new ones are more than the context of "
            f"{context}; set --prompt-tokens and --new-tokens lower"
        )
    params = SamplingParams(ignore_eos=True, max_tokens=work.new_tokens)
    prompts = random.Random(work.seed)  # equal from bench to bench; different from run to run
    vocabulary = min(llm.manifest.vocab_size for llm in llms)
    usages: list[dict[int, list[Usage]]] = [{length: [] for length in work.lengths} for _ in llms]
    runs = [(turn, length) for turn in range(work.repeats) for length in usages[0]]
    for llm in llms:
        llm.generate([0] * min(work.lengths), SamplingParams(ignore_eos=True, max_tokens=2))
    for place, (turn, length) in enumerate(runs):
        prompt = [prompts.randrange(vocabulary) for _ in range(length)]
        for index in range(len(llms)):
            on_run(place * len(llms) + index, len(runs) * len(llms))
            now = (turn + index) % len(llms)
            if len(llms) > 1:
                sleep(PAUSE_S)
            usages[now][length].append(llms[now].generate(prompt, params).usage)
    return [[_medians(seen, usages[0][length]) for length, seen in own.items()] for own in usages]


def _medians(usages: Sequence["Usage"], first: Sequence["Usage"]) -> Speed:
    pairs = list(zip(usages, first, strict=True))
    return Speed(
        prompt_tokens=usages[0].prompt_tokens,
        new_tokens=usages[0].completion_tokens,
        first_token_s=median(usage.first_token_s for usage in usages),
        prefill_tokens_per_s=median(usage.prompt_tokens / usage.first_token_s for usage in usages),
        decode_tokens_per_s=median(usage.tokens_per_second for usage in usages),
        outside_share=median(1 - usage.run_s / usage.total_s for usage in usages),
        prefill_ratio=median(other.first_token_s / usage.first_token_s for usage, other in pairs),
        decode_ratio=median(usage.tokens_per_second / other.tokens_per_second for usage, other in pairs),
    )


def peak_memory_bytes() -> int | None:
    """The most memory this process has held (peak resident set), or None on a system that does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
