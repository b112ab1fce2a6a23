"""Truncations: rules that say which tokens stay in the race. What stays is unchanged.

Each is made by a small maker that binds its options and gives a `Transform`. At least one token always stays,
and it is the likeliest but for `typical_p` and `xtc`. They know nothing of the text.
"""

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.logits.candidates import Candidates, Row, Transform, ranking, spread

Ties: TypeAlias = Literal["lowest", "all"]
"""Of tokens that tie with the last one kept: those with the lowest ids, or all."""

MANY = 8192
"""So many tokens are not sorted without need."""


def top_k(k: int, ties: Ties = "lowest") -> Transform:
    """The k largest logits. Fan 2018 (arXiv 1805.04833)."""

    def transform(candidates: Candidates) -> Candidates:
        logits = candidates.logits
        if k >= len(logits):
            return candidates
        least = np.partition(logits, -k)[-k]
        kept = np.flatnonzero(logits >= least)
        if (surplus := len(kept) - k) and ties == "lowest":
            tied = np.flatnonzero(logits[kept] == least)
            kept = np.delete(kept, tied[-surplus:])
        return candidates.keep(kept)

    return transform


def top_p(mass: float) -> Transform:
    """The fewest likeliest tokens whose probability reaches `mass`, the crossing one included; ties to the
    lowest id.

    Holtzman 2019 (arXiv 1904.09751). Weights are float32, their sums float64. Sorting the vocabulary would be
    most of the cost: only tokens near the likeliest are sorted if they weigh enough, else only those near the
    edge.
    """

    def transform(candidates: Candidates) -> Candidates:
        below = candidates.logits.max() - candidates.logits
        weights = np.exp(-below)
        enough = mass * weights.sum(dtype=np.float64)
        for least in (2.0**-6, 2.0**-12):
            near = np.flatnonzero(weights >= least)
            if len(near) > MANY:
                break
            sure = enough * (1 + 1e-9)  # to be reached, however sums are rounded
            if weights[near].sum(dtype=np.float64) > sure:
                return candidates.keep(np.sort(_reaching(enough, near, candidates, weights)))
        below *= 16  # fresh arrays would cost more than the arithmetic
        level = np.minimum(below, 1024, out=below).astype(np.intp)
        reached = np.cumsum(np.bincount(level, weights))
        edge = int(np.searchsorted(reached, enough))
        before = reached[edge - 1] if edge else 0.0
        kept = level < edge
        kept[_reaching(enough - before, np.flatnonzero(level == edge), candidates, weights)] = True
        return candidates.keep(np.flatnonzero(kept))

    return transform


def _reaching(
    enough: float, places: NDArray[np.intp], candidates: Candidates, weights: Row
) -> NDArray[np.intp]:
    """The first of these places, likeliest first, that weigh enough together."""
    order = places[ranking(candidates.logits[places])]
    reached = np.cumsum(weights[order], dtype=np.float64)
    return order[: np.searchsorted(reached, enough) + 1]


def min_p(fraction: float) -> Transform:
    """Tokens at least `fraction` as likely as the likeliest. Nguyen 2024 (arXiv 2407.01082)."""
    depth = math.log(fraction)

    def transform(candidates: Candidates) -> Candidates:
        logits = candidates.logits
        return candidates.keep(np.flatnonzero(logits - logits.max() >= depth))

    return transform


def typical_p(mass: float, ties: Ties = "lowest") -> Transform:
    """The fewest tokens that reach `mass`, those first whose surprise -ln p is nearest to the entropy.

    Meister 2022 (arXiv 2202.00666). May drop the likeliest.
    """

    def transform(candidates: Candidates) -> Candidates:
        logarithms, probabilities, entropy = spread(candidates.logits)
        deviation = np.abs(logarithms + entropy).astype(np.float32)  # infinite where p is 0
        order = ranking(-deviation)
        count = int(np.searchsorted(np.cumsum(probabilities[order]), mass)) + 1
        if ties == "all":
            return candidates.keep(np.flatnonzero(deviation <= deviation[order[:count]][-1]))
        return candidates.keep(np.sort(order[:count]))

    return transform


def top_n_sigma(n: float) -> Transform:
    """Logits within n standard deviations (of what is possible) of the largest. The same at any temperature.

    Tang 2024 (arXiv 2411.07641).
    """

    def transform(candidates: Candidates) -> Candidates:
        logits = candidates.logits
        depth = n * logits[logits > -np.inf].std(dtype=np.float64)
        return candidates.keep(np.flatnonzero(logits.astype(np.float64) >= logits.max() - depth))

    return transform


def epsilon_cutoff(epsilon: float) -> Transform:
    """Tokens of probability `epsilon` and more, or else the likeliest. Hewitt 2022 (arXiv 2210.15191)."""

    def transform(candidates: Candidates) -> Candidates:
        weights = candidates.weights()
        least = min(epsilon * weights.sum(dtype=np.float64), 1.0)
        return candidates.keep(np.flatnonzero(weights >= least))

    return transform


def eta_cutoff(epsilon: float) -> Transform:
    """Epsilon cutoff at min(epsilon, sqrt(epsilon) * exp(-entropy)): lower where much is possible.

    Hewitt 2022 (arXiv 2210.15191).
    """

    def transform(candidates: Candidates) -> Candidates:
        _, probabilities, entropy = spread(candidates.logits)
        least = min(epsilon, math.sqrt(epsilon) * math.exp(-entropy), probabilities.max())
        return candidates.keep(np.flatnonzero(probabilities >= least))

    return transform


def top_h(share: float) -> Transform:
    """As many of the likeliest as keep the entropy of what is left within `share` of the whole entropy.

    What is left is renormalised: H(q) <= share * H(p). Potraghloo 2025 (arXiv 2509.02510).
    """

    def transform(candidates: Candidates) -> Candidates:
        logarithms, probabilities, entropy = spread(candidates.logits)
        order = ranking(candidates.logits)
        order = order[probabilities[order] > 0]
        terms = probabilities[order] * logarithms[order]
        mass = np.cumsum(probabilities[order])
        left = np.log(mass) - np.cumsum(terms) / mass  # H of the first 1, 2, ... tokens; grows
        count = int(np.searchsorted(left, share * entropy, side="right"))
        return candidates.keep(np.sort(order[: max(count, 1)]))

    return transform


def top_h_of_hundred(share: float) -> Transform:
    """Top-H as transformers has it: among the 100 likeliest, with the entropy's terms summed as they are."""
    hundred = top_k(100)

    def transform(candidates: Candidates) -> Candidates:
        candidates = hundred(candidates)
        logarithms, probabilities, entropy = spread(candidates.logits)
        order = ranking(candidates.logits)
        terms = -probabilities[order] * np.maximum(logarithms[order], -1e3)
        count = int(np.searchsorted(np.cumsum(terms), share * entropy, side="right"))
        return candidates.keep(np.sort(order[: max(count, 1)]))

    return transform


def xtc(threshold: float) -> Transform:
    """Exclude top choices: of the tokens of probability `threshold` and more, only the least likely stays.

    Weidmann 2024 (text-generation-webui, pull request 6335). Whether it is done at all is the toss of a coin
    that the pipeline makes for each token.
    """

    def transform(candidates: Candidates) -> Candidates:
        weights = candidates.weights()
        top = np.flatnonzero(weights >= threshold * weights.sum(dtype=np.float64))
        if len(top) < 2:
            return candidates
        survivor = top[ranking(candidates.logits[top])[-1]]
        return candidates.keep(np.delete(np.arange(len(weights)), top[top != survivor]))

    return transform
