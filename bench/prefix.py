"""What the prefix cache saves: time to the first token of prompts that begin alike, known or not, in turns.

    python bench/prefix.py ARTIFACT [PREFIX_TOKENS]

Prints medians of five. Prompts are random tokens: a prefix, and 16 of their own.
"""

import random
import sys
from statistics import median

from sardonyx.runtime import LLM, Memory, Reuse, SamplingParams

REPEATS, OWN = 5, 16
PARAMS = SamplingParams(ignore_eos=True, max_tokens=2)


def main(artifact: str, prefix_tokens: str = "1000") -> None:
    with_cache, without = LLM.load(artifact), LLM.load(artifact, memory=Memory(reuse=Reuse(0)))
    draw = random.Random(0)

    def tokens(count: int) -> list[int]:
        return [draw.randrange(with_cache.manifest.vocab_size) for _ in range(count)]

    prefix = tokens(int(prefix_tokens))
    for llm in (with_cache, without):  # warms up, and makes the prefix known to one of them
        llm.generate([*prefix, *tokens(OWN)], PARAMS)
    known, unknown = [], []
    for _ in range(REPEATS):
        prompt = [*prefix, *tokens(OWN)]
        unknown.append(without.generate(prompt, PARAMS).usage.first_token_s)
        usage = with_cache.generate(prompt, PARAMS).usage
        known.append(usage.first_token_s)
    print(
        f"{with_cache.manifest.name} ({with_cache.manifest.recipe}), {usage.prompt_tokens} prompt tokens: "
        f"first token after {median(unknown):.3f} s; "
        f"with {usage.cached_tokens} known, {median(known):.3f} s: "
        f"{median(unknown) / median(known):.1f} times sooner"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
