"""Timing the same request under several recipes and numbers of threads, and choosing among them.

One model is loaded at a time. Rounds go through all candidates, so that a slow minute hits all alike; what is
compared are medians over rounds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

ALIKE = 1.05
"""Requests whose times differ by less are as fast as each other: then quality decides."""


@dataclass(frozen=True)
class Work:
    """The request that is timed."""

    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True)
class Candidate:
    """A recipe, and how many weights share a scale; None where it has no blocks."""

    recipe: str
    block: int | None = None


@dataclass
class Timing:
    """A candidate with a number of threads, and what its rounds took."""

    candidate: Candidate
    threads: int
    size: int
    prefill: list[float] = field(default_factory=list)
    """Tokens per second, of each round."""
    decode: list[float] = field(default_factory=list)

    def seconds(self, work: Work) -> float:
        """Of the whole request, by the medians."""
        return work.prompt_tokens / median(self.prefill) + work.new_tokens / median(self.decode)


Progress = Callable[[int, int, str], None]


def timed(
    artifacts: Mapping[Candidate, Path],
    threads: Sequence[int],
    work: Work,
    enough: Callable[[], bool],
    progress: Progress,
) -> list[Timing]:
    """Time every artifact with every number of threads, round after round until it is enough.

    Raises RequestError when the request does not fit into the context.
    """
    from sardonyx.runtime.cli.measure import measure
    from sardonyx.runtime.library import stored_bytes
    from sardonyx.runtime.llm import LLM

    timings = [Timing(one, n, stored_bytes(path)) for one, path in artifacts.items() for n in threads]
    while True:
        for done, timing in enumerate(timings):
            progress(done, len(timings), "timing recipes")
            llm = LLM.load(artifacts[timing.candidate], threads=timing.threads, check=False)
            (speed,) = measure(llm, [work.prompt_tokens], work.new_tokens, 1, lambda done, total: None)
            timing.prefill.append(speed.prefill_tokens_per_s)
            timing.decode.append(speed.decode_tokens_per_s)
        progress(len(timings), len(timings), "timing recipes")
        if enough():
            return timings


def recommended(timings: Sequence[Timing], work: Work, limits: Mapping[str, float]) -> Timing:
    """Of those that are as fast as the fastest, the one whose recipe promises the least divergence; of these,
    the one with the smallest blocks, which are the better, and then with the fewest threads.
    """
    fastest = min(timing.seconds(work) for timing in timings)
    alike = [timing for timing in timings if timing.seconds(work) <= ALIKE * fastest]

    def rank(timing: Timing) -> tuple[float, int, int, float]:
        candidate = timing.candidate
        return limits[candidate.recipe], candidate.block or 0, timing.threads, timing.seconds(work)

    return min(alike, key=rank)
