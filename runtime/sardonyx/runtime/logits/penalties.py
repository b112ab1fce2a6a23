"""Penalties: what has been said becomes less likely to be said again, and an end more likely with time.

Each changes a row in place. What is forbidden (minus infinity) stays so, and what is not stays finite.
"""

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.logits.candidates import LOWEST, Float64, Processor, Row
from sardonyx.runtime.logits.history import History, Tally


def rewrite(row: Row, ids: NDArray[np.intp], new: Float64) -> None:
    """Give tokens new logits, kept finite. What is forbidden stays forbidden."""
    old = row[ids]
    row[ids] = np.where(np.isneginf(old), old, np.clip(new, LOWEST, -LOWEST))


def repetition_penalty(penalty: float, seen: Tally) -> Processor:
    """Logits of tokens seen, however often: divided by the penalty if positive, else multiplied.

    CTRL (Keskar 2019, arXiv 1909.05858), with the sign rule that all implementations add.
    """

    def process(row: Row) -> None:
        old = row[seen.ids].astype(np.float64)
        with np.errstate(over="ignore"):
            rewrite(row, seen.ids, np.where(old > 0, old / penalty, old * penalty))

    return process


def presence_penalty(penalty: float, seen: Tally) -> Processor:
    """The penalty is taken from every token seen, however often. OpenAI's definition."""

    def process(row: Row) -> None:
        rewrite(row, seen.ids, row[seen.ids] - np.float64(penalty))

    return process


def frequency_penalty(penalty: float, seen: Tally) -> Processor:
    """The penalty is taken from every token as often as it was seen. OpenAI's definition."""

    def process(row: Row) -> None:
        with np.errstate(over="ignore"):
            rewrite(row, seen.ids, row[seen.ids] - penalty * seen.counts)

    return process


def exponential_decay_length_penalty(
    start: int, factor: float, ends: tuple[int, ...], history: History
) -> Processor:
    """After `start` tokens, end tokens gain |logit| * (factor ** tokens since - 1). Hugging Face's."""
    ids = np.array(ends, np.intp)

    def process(row: Row) -> None:
        if history.generated > start:
            with np.errstate(over="ignore", invalid="ignore"):
                growth = np.float64(factor) ** (history.generated - start) - 1
                old = row[ids].astype(np.float64)
                rewrite(row, ids, np.where(old, old + np.abs(old) * growth, old))

    return process
