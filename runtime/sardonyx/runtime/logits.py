"""From a row of logits to a token: penalties, temperature, truncations, the draw. Pure functions on arrays.

Two kinds of step, each made by a small maker that binds its options:

    Processor   (sequence, logits [vocab]) -> logits [vocab]    sees the text so far: penalties, biases, bans
    Transform   candidates -> candidates                        sees the distribution alone: temperature, cuts

Their order is Hugging Face's: repetition penalty, temperature, top-k, top-p, min-p. The draw is Gumbel-max
with noise that is a hash of (seed, position, token), so a seed gives the same token whatever else is in the
batch and however unlikely tokens were cut off. Nothing here knows of models, caches or text.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.params import SamplingParams

Tokens: TypeAlias = NDArray[np.integer[Any]] | list[int]
"""Ids of one sequence so far, prompt included. An array is much cheaper than a list."""

Row: TypeAlias = NDArray[np.float32]
"""Logits of one position, `[vocab]`."""


class Candidates(NamedTuple):
    """The tokens still in the race: ids in ascending order, and their logits."""

    ids: NDArray[np.int32]  # [n]
    logits: Row  # [n]

    def keep(self, which: NDArray[np.intp]) -> "Candidates":
        """Those at the given places, which must ascend."""
        return Candidates(self.ids[which], self.logits[which])


Processor: TypeAlias = Callable[[Tokens, Row], Row]
Transform: TypeAlias = Callable[[Candidates], Candidates]
Pipeline: TypeAlias = Callable[[Tokens, Row], Candidates]
Pick: TypeAlias = Callable[[Tokens, Row, int], int]
"""(sequence so far, logits of its last position, absolute position of the token to pick) -> token id."""


LOWEST = float(np.finfo(np.float32).min)


def make_picker(params: SamplingParams, seed: int) -> Pick:
    """The rule by which one request picks its tokens. `seed` replaces `params.seed`, which may be None."""
    candidates_of = pipeline(params)

    def pick(sequence: Tokens, logits: Row, position: int) -> int:
        candidates = candidates_of(sequence, logits)
        return draw(candidates, seed, position) if len(candidates.ids) > 1 else int(candidates.ids[0])

    return pick


def pipeline(params: SamplingParams) -> Pipeline:
    """All that shapes the distribution, before the draw: softmax of the result is what is sampled from.

    With temperature 0 one candidate is left, the argmax; truncations could not change that and are not run.
    The pipeline raises ArtifactError for logits that are no distribution (NaN, an infinity, or all minus
    infinity).
    """
    processors, transforms = _steps(params)

    def shape(sequence: Tokens, logits: Row) -> Candidates:
        _check(sequence, logits)
        for process in processors:
            logits = process(sequence, logits)
        candidates = Candidates(_all_ids(len(logits)), logits)
        for transform in transforms:
            candidates = transform(candidates)
        return candidates

    return shape


def _steps(params: SamplingParams) -> tuple[list[Processor], list[Transform]]:
    """The steps that are on, in order."""
    processors: list[Processor] = []
    if params.repetition_penalty != 1:
        processors.append(repetition_penalty(params.repetition_penalty))
    if params.temperature == 0:
        return processors, [greedy]
    transforms: list[Transform] = []
    if params.temperature != 1:
        transforms.append(temperature(params.temperature))
    if params.top_k:
        transforms.append(top_k(params.top_k))
    if params.top_p < 1:
        transforms.append(top_p(params.top_p))
    if params.min_p:
        transforms.append(min_p(params.min_p))
    return processors, transforms


def repetition_penalty(penalty: float) -> Processor:
    """Logits of tokens in the sequence, each once: divided by the penalty if positive, else multiplied.

    CTRL (Keskar 2019, arXiv 1909.05858), with the sign rule that all implementations add.
    """

    def process(sequence: Tokens, logits: Row) -> Row:
        seen = np.asarray(sequence, dtype=np.intp)
        old = logits[seen].astype(np.float64)
        new = np.clip(np.where(old > 0, old / penalty, old * penalty), LOWEST, -LOWEST)
        logits = logits.copy()
        logits[seen] = np.where(np.isneginf(old), old, new)  # what is seen twice is written twice, the same
        return logits

    return process


def greedy(candidates: Candidates) -> Candidates:
    """The one with the largest logit; of equals, the lowest id."""
    return candidates.keep(np.array([candidates.logits.argmax()]))


def temperature(degree: float) -> Transform:
    """Logits / degree, shifted so that the largest is 0, which softmax ignores: nothing can overflow."""
    degree = max(degree, float(np.finfo(np.float32).tiny))

    def transform(candidates: Candidates) -> Candidates:
        ids, logits = candidates
        with np.errstate(over="ignore"):  # to minus infinity, which is what it means
            return Candidates(ids, (logits - logits.max()) / degree)

    return transform


def top_k(k: int) -> Transform:
    """The k largest logits; of those equal to the last, the lowest ids. Fan 2018 (arXiv 1805.04833)."""

    def transform(candidates: Candidates) -> Candidates:
        logits = candidates.logits
        if k >= len(logits):
            return candidates
        least = np.partition(logits, -k)[-k]
        kept = np.flatnonzero(logits >= least)
        if surplus := len(kept) - k:
            tied = np.flatnonzero(logits[kept] == least)
            kept = np.delete(kept, tied[-surplus:])
        return candidates.keep(kept)

    return transform


def top_p(mass: float) -> Transform:
    """The fewest likeliest tokens whose probability reaches `mass`, the crossing one included; ties to the
    lowest id.

    Holtzman 2019 (arXiv 1904.09751). Weights are float32, their sums float64. Sorting the vocabulary would be
    most of the cost, so the tokens within some distance of the likeliest are sorted, at first near, until
    they weigh enough.
    """

    def transform(candidates: Candidates) -> Candidates:
        logits = candidates.logits
        weights = np.exp(logits - logits.max())
        enough = mass * weights.sum(dtype=np.float64)
        for least in (2.0**-6, 2.0**-12, 2.0**-18, 0.0):
            heavy = np.flatnonzero(weights >= least)
            if weights[heavy].sum(dtype=np.float64) > enough * (
                1 + 1e-9
            ):  # sure to be reached below, however rounded
                break
        order = heavy[np.argsort(-logits[heavy], kind="stable")]
        reached = np.cumsum(weights[order], dtype=np.float64)
        return candidates.keep(np.sort(order[: np.searchsorted(reached, enough) + 1]))

    return transform


def min_p(fraction: float) -> Transform:
    """Tokens at least `fraction` as likely as the likeliest. Nguyen 2024 (arXiv 2407.01082)."""
    depth = math.log(fraction)

    def transform(candidates: Candidates) -> Candidates:
        logits = candidates.logits
        return candidates.keep(np.flatnonzero(logits - logits.max() >= depth))

    return transform


def draw(candidates: Candidates, seed: int, position: int) -> int:
    """One token id, distributed as softmax of the logits: argmax of logit + Gumbel noise (arXiv 1411.0030).

    Of equals, the lowest id wins. Many candidates meet in heats whose arrays stay in the processor's cache;
    noise being a hash, the winner among winners is the winner of all.
    """
    ids, logits = candidates
    key = noise_key(seed, position)
    if len(ids) > HEAT:
        starts = range(0, len(ids), HEAT)
        winners = [i + _winner(Candidates(ids[i : i + HEAT], logits[i : i + HEAT]), key) for i in starts]
        ids, logits = candidates.keep(np.array(winners))
    return int(ids[_winner(Candidates(ids, logits), key)])


HEAT = 16384


def _winner(candidates: Candidates, key: int) -> int:
    """Place of the largest logit + Gumbel noise.

    With E = -ln u, that is the least E / weight. As E >= 1 - u, a token whose (1 - u) / weight exceeds
    another's E / weight has lost, so logarithms are taken only of the few that are left.
    """
    ids, logits = candidates
    u = uniform(ids, key)
    top = max(logits.max(), LOWEST)  # finite, also where all are masked
    with np.errstate(divide="ignore"):
        bound = (1 - u) / np.exp(logits - top)  # float64 [n]; infinite where there is no weight to speak of
    best = bound.argmin()
    rival = bound[best] * (-math.log(u[best]) / (1 - u[best]))
    left = np.flatnonzero(bound <= rival * (1 + 1e-6))  # a margin, as weights are float32
    return int(left[np.argmax(logits[left] - np.log(-np.log(u[left])))])


def uniform(ids: NDArray[np.int32], key: int) -> NDArray[np.float64]:
    """Noise of each token, uniform in (0, 1): number `id` of the SplitMix64 stream that starts at `key`.

    A hash, not a generator: the noise of a token does not depend on which others are asked for.
    """
    bits = ids.astype(np.uint64)
    bits += np.uint64(1)
    bits *= np.uint64(_GOLDEN)
    bits += np.uint64(key)
    _mix(bits)
    bits >>= np.uint64(12)
    u = bits.astype(np.float64)
    u += 0.5
    u *= 2.0**-52
    return u


def noise_key(seed: int, position: int) -> int:
    """Start of the noise stream of one position, 64 bits. Any integers will do."""
    return _mixed(_mixed(seed) + position * _GOLDEN)


# The finaliser of SplitMix64 (Steele, Lea, Flood 2014), modulo 2^64; a round is x ^= x >> shift; x *= factor.
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
_GOLDEN = 0x9E3779B97F4A7C15
_ALL_ONES = 2**64 - 1


def _mixed(bits: int) -> int:
    bits &= _ALL_ONES
    for shift, factor in _ROUNDS:
        bits = (bits ^ bits >> shift) * factor & _ALL_ONES
    return bits


def _mix(bits: NDArray[np.uint64]) -> None:
    """The same for an array, in place: fresh arrays would cost more than the arithmetic."""
    shifted = np.empty_like(bits)
    for shift, factor in _ROUNDS:
        np.right_shift(bits, np.uint64(shift), out=shifted)
        bits ^= shifted
        bits *= np.uint64(factor)


def _check(sequence: Tokens, logits: Row) -> None:
    top = logits[logits.argmax()]  # argmax stops at NaN
    if not math.isfinite(top):
        raise ArtifactError(
            f"the model's logits after {len(sequence)} tokens are no distribution (the largest is {top}):"
            " its weights or recipe are at fault; export it again, with a wider recipe if that is not enough"
        )


@lru_cache(maxsize=4)
def _all_ids(vocab: int) -> NDArray[np.int32]:
    """0, 1, ... vocab - 1, read-only: asked for at every token."""
    ids = np.arange(vocab, dtype=np.int32)
    ids.flags.writeable = False
    return ids
