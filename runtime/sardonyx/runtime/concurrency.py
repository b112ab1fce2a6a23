"""Measuring how a loaded model answers several at once.

It knows nothing of how the model runs: it asks for answers, and notes when their tokens come.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies import Algorithm, Decoding, Request
from sardonyx.runtime.strategies.sample import Sample
from sardonyx.runtime.stream import Stream

RUNNING = 4
JOINING_TOKENS = 2000
SETTLED = 12
"""Tokens that every running answer has before the long prompt joins."""


@dataclass(frozen=True)
class Crowd:
    """Medians over the repeats of so many equal answers at once. `decode_tokens_per_s` is of all together,
    while all decode; gaps are the times between two tokens of one.
    """

    answers: int
    decode_tokens_per_s: float
    first_token_s: float
    gap_p50_s: float
    gap_p95_s: float
    outside_share: float


@dataclass(frozen=True)
class Joining:
    """What running answers feel of a long prompt: their median gap before, and the median and the longest
    while it is computed. Medians over the repeats.
    """

    answers: int
    prompt_tokens: int
    first_token_s: float
    gap_before_s: float
    gap_p50_s: float
    gap_longest_s: float


class Timed(Algorithm, frozen=True, kw_only=True):
    """Greedy decoding that notes when each token came."""

    times: Any

    def start(self, request: Request) -> Decoding[None]:
        decoding = Sample().start(request)
        feed = next(decoding)
        while True:
            logits = yield feed
            self.times.append(perf_counter())
            try:
                feed = decoding.send(logits)
            except StopIteration:
                return


class Crowds:
    """Answers to random prompts, each different, so that none is known from another."""

    def __init__(self, llm: LLM, prompt_tokens: int, new_tokens: int) -> None:
        """Raises RequestError when prompt and answer do not fit into the context."""
        context = llm.context_length
        if max(prompt_tokens + new_tokens, 2 * SETTLED) > context:
            raise RequestError(
                f"{prompt_tokens} prompt tokens and {new_tokens} new ones are more than the context of "
                f"{context}; set --prompt-tokens and --new-tokens lower"
            )
        self._llm = llm
        self._prompt_tokens = prompt_tokens
        self._new_tokens = new_tokens
        self._random = random.Random(0)

    def crowd(self, answers: int) -> Crowd:
        """So many answers, all asked for at once."""
        asked = perf_counter()
        begun = [self._begin(self._prompt_tokens, self._new_tokens) for _ in range(answers)]
        for stream, _ in begun:
            stream.wait()
        start, stop = max(times[0] for _, times in begun), min(times[-1] for _, times in begun)
        tokens = sum(start < time <= stop for _, times in begun for time in times)
        gaps = sorted(gap for _, times in begun for gap in _gaps(times, start, stop))
        usage = begun[-1][0].completion.usage
        return Crowd(
            answers,
            tokens / (stop - start),
            median(times[0] for _, times in begun) - asked,
            median(gaps),
            gaps[int(0.95 * (len(gaps) - 1))],
            1 - usage.run_s / usage.total_s,
        )

    def joining(self) -> Joining:
        """A long prompt that joins running answers."""
        context = self._llm.context_length
        short = min(self._prompt_tokens, context // 4)
        running = [self._begin(short, context) for _ in range(RUNNING)]
        running[0][0].wait_until(lambda: min(len(times) for _, times in running) >= SETTLED)
        asked, tokens = perf_counter(), min(JOINING_TOKENS, context // 2)
        stream, long = self._begin(tokens, 2)
        stream.wait()
        come = long[0]
        for other, _ in running:
            other.cancel()
        before = [gap for _, times in running for gap in _gaps(times, 0.0, asked)]
        during = [gap for _, times in running for gap in _gaps(times, asked, come)]
        return Joining(RUNNING, tokens, come - asked, median(before), median(during), max(during))

    def _begin(self, prompt_tokens: int, new_tokens: int) -> tuple[Stream, list[float]]:
        """An answer on its way, and the times of its tokens as they come."""
        times: list[float] = []
        prompt = [self._random.randrange(self._llm.manifest.vocab_size) for _ in range(prompt_tokens)]
        params = SamplingParams(ignore_eos=True, max_tokens=new_tokens)
        return self._llm.stream(prompt, params, Timed(times=times)), times


def measure_crowds(
    crowds: Crowds, sizes: Sequence[int], repeats: int, on_run: Callable[[int, int], None]
) -> tuple[list[Crowd], Joining]:
    """Time every size, and a long prompt that joins, `repeats` times, in turns."""
    found: list[list[Any]] = [[] for _ in range(len(sizes) + 1)]
    crowds.crowd(1)
    for turn in range(repeats):
        for place, size in enumerate([*sizes, None]):
            on_run(turn * len(found) + place, repeats * len(found))
            found[place].append(crowds.joining() if size is None else crowds.crowd(size))
    *of_sizes, joining = map(_medians, found)
    return of_sizes, joining


def _medians(figures: Sequence[Any]) -> Any:
    """Field by field; counts are the same in all."""
    columns = zip(*map(astuple, figures), strict=True)
    return type(figures[0])(
        *(column[0] if isinstance(column[0], int) else median(column) for column in columns)
    )


def _gaps(times: Sequence[float], start: float, stop: float) -> list[float]:
    """Those that lie in a span of time, at least in part."""
    return [after - before for before, after in pairwise(times) if after > start and before < stop]
