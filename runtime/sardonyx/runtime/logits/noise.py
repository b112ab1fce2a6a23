"""The draw: Gumbel-max, with noise that is a hash of (seed, position, token).

So a seed gives the same token whatever else is in the batch and however unlikely tokens were cut off. Nothing
here knows what shaped the distribution.
"""

import math
import sys
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.logits.candidates import Candidates, Row, all_ids

Bits = NDArray[np.uint64]

HEAT = 12288
"""Candidates that are dealt with at once; their arrays stay in the processor's cache."""

FEW = 512
"""Candidates of whom it is not worth while to say first who has lost."""


def draw(candidates: Candidates, seed: int, position: int) -> int:
    """One token id, distributed as softmax of the logits: argmax of logit + Gumbel noise (arXiv 1411.0030).

    Of equals, the lowest id wins.
    """
    ids, logits = candidates
    key = noise_key(seed, position)
    left = _not_lost(ids, key, logits) if len(ids) > FEW else slice(None)
    noise = -np.log(-np.log(uniform(ids[left], key)))
    return int(ids[left][np.argmax(logits[left] + noise)])


def _not_lost(ids: NDArray[np.int32], key: int, logits: Row) -> NDArray[np.intp]:
    """Places of the tokens that may win, found without a logarithm.

    With E = -ln u, the winner has the least E / weight. As E >= 1 - u, a token whose (1 - u) / weight exceeds
    another's E / weight has lost.
    """
    top = logits.max()
    if top == -np.inf:
        return np.zeros(1, np.intp)
    bound = _bounds(ids, key, logits, top)
    best = bound.argmin()
    rival = -math.log(uniform(ids[[best]], key)[0]) * math.exp(float(top) - float(logits[best])) * 2.0**31
    return np.flatnonzero(bound <= np.float32(rival * (1 + 1e-5)))  # a margin for rounding


def _bounds(ids: NDArray[np.int32], key: int, logits: Row, top: np.float32) -> Row:
    """(1 - u) / weight * 2^31 of each token, 1 - u being rounded down to 31 bits, `[n]`."""
    whole = _whole_stream(len(ids)) if ids is all_ids(len(ids)) else None
    bounds = np.empty(len(ids), np.float32)
    heat = min(HEAT, len(ids))
    bits, shifted, weights = np.empty(heat, np.uint64), np.empty(heat, np.uint64), np.empty(heat, np.float32)
    upper = np.empty(heat, np.uint32)
    for start in range(0, len(ids), heat):
        bound = bounds[start : start + heat]
        mixed, weight = bits[: len(bound)], weights[: len(bound)]
        if whole is None:
            mixed[:] = ids[start : start + heat]
            mixed *= np.uint64(_GOLDEN)
            mixed += np.uint64((key + _GOLDEN) & _ALL_ONES)
        else:
            np.add(whole[start : start + heat], np.uint64(key), out=mixed)
        _mix(mixed, shifted[: len(bound)], _ROUNDS[:2])  # the last round leaves the upper bits as they are
        left = np.invert(mixed.view(np.uint32)[_UPPER::2], out=upper[: len(bound)])
        left >>= np.uint32(1)
        bound[:] = left.view(np.int32)
        bound += np.float32(2.0**-22)  # 1 - u is 2^-53 at least; to others it adds less than the margin
        np.subtract(top, logits[start : start + heat], out=weight)
        with np.errstate(over="ignore"):  # infinite where there is no weight to speak of
            bound *= np.exp(weight, out=weight)
    return bounds


def uniform(ids: NDArray[np.int32], key: int) -> NDArray[np.float64]:
    """Noise of each token, uniform in (0, 1): number `id` of the SplitMix64 stream that starts at `key`.

    A hash, not a generator: the noise of a token does not depend on which others are asked for.
    """
    bits = _stream(ids) + np.uint64(key)
    _mix(bits, np.empty_like(bits))
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def coin(seed: int, position: int) -> float:
    """One number uniform in (0, 1) for a whole position: the one before the first token's."""
    return ((_mixed(noise_key(seed, position)) >> 12) + 0.5) * 2.0**-52


def noise_key(seed: int, position: int) -> int:
    """Start of the noise stream of one position, 64 bits. Any integers will do."""
    return _mixed(_mixed(seed) + position * _GOLDEN)


# The finaliser of SplitMix64 (Steele, Lea, Flood 2014), modulo 2^64; a round is x ^= x >> shift; x *= factor.
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
_GOLDEN = 0x9E3779B97F4A7C15
_ALL_ONES = 2**64 - 1
_UPPER = 1 if sys.byteorder == "little" else 0
"""Which half of a 64-bit number holds the upper bits."""


def _mixed(bits: int) -> int:
    bits &= _ALL_ONES
    for shift, factor in _ROUNDS:
        bits = (bits ^ bits >> shift) * factor & _ALL_ONES
    return bits


def _mix(bits: Bits, shifted: Bits, rounds: Sequence[tuple[int, int]] = _ROUNDS) -> None:
    """The same for an array, in place: fresh arrays would cost more than the arithmetic."""
    for shift, factor in rounds:
        np.right_shift(bits, np.uint64(shift), out=shifted)
        bits ^= shifted
        if factor > 1:
            bits *= np.uint64(factor)


def _stream(ids: NDArray[np.int32]) -> Bits:
    """Where the noise of tokens stands in a stream that starts at 0, before mixing."""
    return (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)


@lru_cache(maxsize=4)
def _whole_stream(vocab: int) -> Bits:
    return _stream(all_ids(vocab))
