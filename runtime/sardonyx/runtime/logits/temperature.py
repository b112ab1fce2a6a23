"""Temperature, fixed or following the entropy. Order is kept, sharpness changes."""

import math

import numpy as np

from sardonyx.runtime.logits.candidates import LOWEST, Candidates, Transform, spread

TINIEST = float(np.finfo(np.float32).tiny)


def greedy(candidates: Candidates) -> Candidates:
    """The one with the largest logit; of equals, the lowest id. What temperature 0 means."""
    return candidates.keep(np.array([candidates.logits.argmax()]))


def temperature(degree: float) -> Transform:
    """Logits / degree, shifted so that the largest is 0, which softmax ignores: nothing can overflow."""
    degree = min(max(degree, TINIEST), -LOWEST)

    def transform(candidates: Candidates) -> Candidates:
        ids, logits = candidates
        logits = logits - logits.max()
        with np.errstate(over="ignore"):  # to minus infinity, which is what it means
            logits /= degree
        return Candidates(ids, logits)

    return transform


def dynamic_temperature(degree: float, reach: float, exponent: float) -> Transform:
    """Temperature between `degree - reach` (not below 0) and `degree + reach`, by how uncertain the model is.

    Lowest + (highest - lowest) * (H / ln n) ** exponent, with the entropy H of the n tokens that are possible
    (llama.cpp's dynatemp). A temperature of 0 is greedy.
    """
    lowest, highest = max(0.0, degree - reach), degree + reach

    def transform(candidates: Candidates) -> Candidates:
        possible = int(np.count_nonzero(candidates.logits > -np.inf))
        if possible < 2:
            return candidates
        share = min(spread(candidates.logits).entropy / math.log(possible), 1.0)
        degree = lowest + (highest - lowest) * share**exponent
        return temperature(degree)(candidates) if degree else greedy(candidates)

    return transform
