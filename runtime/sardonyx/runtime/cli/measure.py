"""Measuring a loaded model, for `sardonyx bench`.

It knows nothing of how the model runs: it asks for answers and reads their usage.
"""

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from sardonyx.runtime.errors import RequestError

if TYPE_CHECKING:
    from sardonyx.runtime.answer import Usage
    from sardonyx.runtime.llm import LLM


@dataclass(frozen=True)
class Speed:
    """Medians over the repeats of one prompt length. `outside_share` is of the time of the whole request."""

    prompt_tokens: int
    new_tokens: int
    first_token_s: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    outside_share: float


def measure(
    llm: "LLM",
    lengths: Sequence[int],
    new_tokens: int,
    repeats: int,
    on_run: Callable[[int, int], None],
    seed: int = 0,
) -> list[Speed]:
    """Time every prompt length `repeats` times, in turns, so that a slow minute hits all alike.

    Prompts are random by `seed`: give another to the same LLM, which would know the old ones. One short
    request warms up first. `on_run` is told the runs done and the runs in all. Raises RequestError
    when a length does not fit into the context.
    """
    from sardonyx.runtime.params import SamplingParams

    context = llm.context_length
    if max(lengths) + new_tokens > context:
        raise RequestError(
            f"{max(lengths)} prompt tokens and {new_tokens} new ones are more than the context of {context}; "
            "set --prompt-tokens and --new-tokens lower"
        )
    params = SamplingParams(ignore_eos=True, max_tokens=new_tokens)
    prompts = random.Random(seed)  # equal from bench to bench; different from run to run
    usages: dict[int, list[Usage]] = {length: [] for length in lengths}
    llm.generate([0] * min(lengths), SamplingParams(ignore_eos=True, max_tokens=2))
    for turn in range(repeats):
        for place, (length, seen) in enumerate(usages.items()):
            on_run(turn * len(usages) + place, repeats * len(usages))
            prompt = [prompts.randrange(llm.manifest.vocab_size) for _ in range(length)]
            seen.append(llm.generate(prompt, params).usage)
    return [_medians(seen) for seen in usages.values()]


def _medians(usages: Sequence["Usage"]) -> Speed:
    return Speed(
        prompt_tokens=usages[0].prompt_tokens,
        new_tokens=usages[0].completion_tokens,
        first_token_s=median(usage.first_token_s for usage in usages),
        prefill_tokens_per_s=median(usage.prompt_tokens / usage.first_token_s for usage in usages),
        decode_tokens_per_s=median(usage.tokens_per_second for usage in usages),
        outside_share=median(1 - usage.run_s / usage.total_s for usage in usages),
    )


def peak_memory_bytes() -> int | None:
    """The most memory this process has held (peak resident set), or None on a system that does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
