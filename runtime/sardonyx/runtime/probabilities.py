"""From logits to probabilities, for those who compare texts. In float32, sums in float64. Knows no rule for
choosing.
"""

import math

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]


def log_sum(logits: Row) -> float:
    """ln of the sum of exp(logits): what makes log probabilities of them, `[n]` to one."""
    top = logits.max()
    return float(top) + math.log(np.exp(logits - top).sum(dtype=np.float64))


def log_softmax(logits: Row) -> Row:
    """Log probabilities, `[n]`. Minus infinity stays."""
    return logits - np.float32(log_sum(logits))


def softmax(logits: Row) -> Row:
    """Probabilities, `[n]`."""
    probabilities: Row = np.exp(log_softmax(logits))
    return probabilities


def largest(values: Row, count: int) -> NDArray[np.intp]:
    """Places of the `count` largest values, largest first; of equals, the lowest place. Minus infinity is
    none of them.
    """
    places = np.flatnonzero(values > -np.inf)
    if count < len(places):
        least = np.partition(values, -count)[-count]
        places = np.flatnonzero(values >= least)
    return places[np.argsort(-values[places], kind="stable")][:count]
