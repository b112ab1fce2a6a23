"""Truncations: rules that say which tokens stay in the race. What stays is unchanged.

Each is made by a small maker that binds its options and gives a `Transform`. At least one token always stays,
and it is the likeliest but for `typical_p` and `xtc`. They know nothing of the text.
"""

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.logits.candidates import Candidates, Float64, Row, Transform, ranking, spread

Ties: TypeAlias = Literal["lowest", "all"]
"""Of tokens that tie with the last one kept: those with the lowest ids, or all."""

MANY = 8192
"""So many tokens are not sorted without need."""
HEAT = 8192
"""Tokens that are dealt with at once; their arrays stay in the processor's cache."""
LEVELS = 1024
"""Of a sixteenth of a nat. Beyond them all is equally far."""


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
    lowest id. Holtzman 2019 (arXiv 1904.09751).
    """

    def transform(candidates: Candidates) -> Candidates:
        below = candidates.logits.max() - candidates.logits
        weights = np.negative(below)
        np.exp(weights, out=weights)
        return candidates.keep(_nearest(below, weights, mass * weights.sum(dtype=np.float64)))

    return transform


def _nearest(distance: Row, weights: Row, enough: float) -> NDArray[np.intp]:
    """The fewest places that weigh enough together, nearest first; of equals, the lowest. In ascending order.

    Weights are float32, their sums float64. Sorting the vocabulary would be most of the cost: only what is
    near is sorted if it weighs enough, else only what is about as far as the edge.
    """
    for reach in (4.0, 8.0):
        within = distance <= reach
        if np.count_nonzero(within) > MANY:  # counted first: their places would be a large array
            break
        near = np.flatnonzero(within)
        sure = enough * (1 + 1e-9)  # to be reached, however sums are rounded
        if weights[near].sum(dtype=np.float64) > sure:
            return np.sort(_reaching(near, distance, weights, enough))
    (masses,) = _by_level(distance, weights)
    reached = np.cumsum(masses)
    edge = min(int(np.searchsorted(reached, enough)), LEVELS)
    kept, on_edge = _split(distance, edge)
    before = reached[edge - 1] if edge else 0.0
    kept[_reaching(on_edge, distance, weights, enough - before)] = True
    return np.flatnonzero(kept)


def _reaching(places: NDArray[np.intp], distance: Row, weights: Row, enough: float) -> NDArray[np.intp]:
    """The first of these places, nearest first, that weigh enough together."""
    order = places[ranking(-distance[places])]
    reached = np.cumsum(weights[order], dtype=np.float64)
    count = int(np.searchsorted(reached, enough)) + 1
    return order[:count]


def _by_level(distance: Row, *weights: Row) -> list[Float64]:
    """Sums of weights by distance, in sixteenths up to LEVELS, `[LEVELS + 1]` each."""
    sums = [np.zeros(LEVELS + 1) for _ in weights]
    for start in range(0, len(distance), HEAT):
        heat = slice(start, start + HEAT)
        level = np.minimum(distance[heat] * np.float32(16), np.float32(LEVELS)).astype(np.intp)
        for total, weight in zip(sums, weights, strict=True):
            total += np.bincount(level, weight[heat], LEVELS + 1)
    return sums


def _split(distance: Row, edge: int) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """What is nearer than a level, and the places on it."""
    nearer = distance < np.float32(edge / 16)
    on_edge = ~nearer
    if edge < LEVELS:
        on_edge &= distance < np.float32((edge + 1) / 16)
    return nearer, np.flatnonzero(on_edge)


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
        below, weights, log_total, entropy = spread(candidates.logits)
        distance = np.abs(below + np.float32(log_total - entropy))
        kept = _nearest(distance, weights, mass * math.exp(log_total))
        if ties == "all":
            kept = np.flatnonzero(distance <= distance[kept].max())
        return candidates.keep(kept)

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
        _, weights, log_total, entropy = spread(candidates.logits)
        eta = min(epsilon, math.sqrt(epsilon) * math.exp(-entropy))
        return candidates.keep(np.flatnonzero(weights >= min(eta * math.exp(log_total), 1.0)))

    return transform


def top_h(share: float) -> Transform:
    """As many of the likeliest as keep the entropy of what is left within `share` of the whole entropy.

    What is left is renormalised: H(q) <= share * H(p). Potraghloo 2025 (arXiv 2509.02510).
    """

    def transform(candidates: Candidates) -> Candidates:
        below, weights, _, entropy = spread(candidates.logits)
        bound = share * entropy
        near = np.flatnonzero(below <= 8)
        if len(near) <= MANY:
            order = near[ranking(candidates.logits[near])]
            count = _within(bound, weights[order], weights[order] * below[order])
            if count < len(order):
                return candidates.keep(np.sort(order[: max(count, 1)]))
        terms = weights * below
        masses, sums = _by_level(below, weights, terms)
        edge = _within(bound, masses, sums)
        if edge > LEVELS:
            return candidates
        kept, order = _split(below, edge)
        order = order[ranking(candidates.logits[order])]
        count = _within(bound, weights[order], terms[order], (masses[:edge].sum(), sums[:edge].sum()))
        kept[order[: count if edge else max(count, 1)]] = True
        return candidates.keep(np.flatnonzero(kept))

    return transform


def _within(
    bound: float,
    weights: Row | Float64,
    terms: Row | Float64,
    before: tuple[float, float] = (0.0, 0.0),
) -> int:
    """How many tokens, likeliest first, have no more entropy than a bound together with those `before` them:
    ln of their weights' sum, plus the mean of what they are below the likeliest. It grows with each token.
    """
    mass = before[0] + np.cumsum(weights, dtype=np.float64)
    sums = before[1] + np.cumsum(terms, dtype=np.float64)
    return int(np.searchsorted(np.log(mass) + sums / mass, bound, side="right"))


def top_h_of_hundred(share: float) -> Transform:
    """Top-H as transformers has it: among the 100 likeliest, with the entropy's terms summed as they are."""
    hundred = top_k(100)

    def transform(candidates: Candidates) -> Candidates:
        candidates = hundred(candidates)
        below, weights, log_total, entropy = spread(candidates.logits)
        order = ranking(candidates.logits)
        terms = (weights * (below + np.float32(log_total)))[order] / math.exp(log_total)
        count = int(np.searchsorted(np.cumsum(terms, dtype=np.float64), share * entropy, side="right"))
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
