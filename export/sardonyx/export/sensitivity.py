"""What quantizing each weight does to the predictions, one weight at a time.

A text goes through the network as it is, and beside it once for each weight with that weight alone quantized:
such a trial parts from the text at its weight's stage, and ends with the divergence of its logits. All go
stage by stage, so that each weight is read once for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sardonyx.export.calibration import Calibration, Stage, StageWeights, Tokens, Weights, Window
from sardonyx.export.checkpoint import Checkpoint, Float32
from sardonyx.export.parallel import in_parallel
from sardonyx.export.quantizers import Quantizer
from sardonyx.export.weights import Moment
from sardonyx.models.decoder import Decoder
from sardonyx.models.graph import Weight

PIECE = 1 << 20
"""Elements that are quantized at a time."""


@dataclass(frozen=True)
class Sensitivity:
    """Divergence in nats per token when one weight is quantized and all others are not, by quantizer."""

    weight: Weight
    kl: Mapping[Quantizer, float]


@dataclass
class Trial:
    """The text on its way with one weight quantized by the first of the candidates."""

    weight: Weight
    values: list[Any]
    """Of each window, in front of the next stage."""
    errors: list[float] = field(default_factory=list)
    """What each candidate does to the weight's products, squared."""
    kl: list[float] = field(default_factory=list)


class Trials:
    """All trials side by side. `run` each stage after the calibration did; then ask for `sensitivities`."""

    def __init__(
        self,
        decoder: Decoder,
        checkpoint: Checkpoint,
        calibration: Calibration,
        windows: Sequence[Tokens],
        candidates: Sequence[Quantizer],
    ) -> None:
        self._new_window: Callable[[Weights, Tokens], Window] = lambda weights, tokens: Window(
            decoder, weights, tokens, to_logits=True
        )
        self._checkpoint = checkpoint
        self._calibration = calibration
        self._windows = windows
        self._candidates = candidates
        self._plain: list[Any] = [None] * len(windows)
        self._trials: dict[Weight, Trial] = {}
        self.logits: list[Float32] = []
        """Of each window, with no weight quantized, `[tokens, vocab]`."""

    def run(self, stage: Stage) -> None:
        """Take the text and all trials through the next stage. Raises SourceError for weights that are no
        numbers.
        """
        weights = StageWeights(self._checkpoint)
        before = self._plain
        done = [self._through(stage, weights, index, value) for index, value in enumerate(before)]
        self._plain = [value for value, _ in done]
        self.logits = [window.logits for _, window in done if window.logits is not None]
        first = done[0][1]
        own = [first.embedded, *(weight for stack in first.multiplied for weight in stack)]
        for weight in own:
            if weight is not None:
                self._trials.setdefault(weight, Trial(weight, list(before)))

        def advance(trial: Trial) -> None:
            used = self._substituted(weights, trial) if trial.weight in own else weights
            for index, value in enumerate(trial.values):
                trial.values[index], window = self._through(stage, used, index, value)
                if window.logits is not None:
                    trial.kl.append(divergence(self.logits[index], window.logits))

        for _ in in_parallel(advance, list(self._trials.values())):
            pass

    def sensitivities(self) -> list[Sensitivity]:
        """After the last stage. Only the first candidate's effect was seen: that of the others is taken to be
        as much smaller as the squared error of their products.
        """
        return [
            Sensitivity(
                trial.weight,
                {
                    candidate: float(np.mean(trial.kl)) * error / (trial.errors[0] or 1)
                    for candidate, error in zip(self._candidates, trial.errors, strict=True)
                },
            )
            for trial in self._trials.values()
        ]

    def _through(self, stage: Stage, weights: Weights, index: int, value: Any) -> tuple[Any, Window]:
        window = self._new_window(weights, self._windows[index])
        with np.errstate(over="ignore"):
            return stage(window, value), window

    def _substituted(self, weights: Weights, trial: Trial) -> Weights:
        """The stage's weights with the trial's one quantized, whose errors are noted."""
        moment = self._calibration.measured(trial.weight)
        if moment is None:
            read = weights.rows(trial.weight, [token for window in self._windows for token in window])
            trial.errors = [_squared(read - c.dequantized(read), None) for c in self._candidates]
            return Substitute(weights, trial.weight, None, self._candidates[0])
        whole = weights(trial.weight)
        left = np.empty_like(whole)
        trial.errors = [0.0] * len(self._candidates)
        step = max(1, PIECE // whole.shape[1])
        for start in range(0, len(whole), step):
            rows = whole[start : start + step]
            quantized = [candidate.dequantized(rows, moment) for candidate in self._candidates]
            left[start : start + step] = quantized[0]
            for index, found in enumerate(quantized):
                trial.errors[index] += _squared(rows - found, moment)
        return Substitute(weights, trial.weight, left, self._candidates[0])


@dataclass(frozen=True)
class Substitute:
    """Weights of which one is replaced: as a whole, or where rows of it are read."""

    others: Weights
    replaced: Weight
    whole: Float32 | None
    quantizer: Quantizer

    def __call__(self, weight: Weight) -> Float32:
        return self.whole if self.whole is not None and weight == self.replaced else self.others(weight)

    def rows(self, table: Weight, ids: Tokens) -> Float32:
        rows = self.others.rows(table, ids)
        return self.quantizer.dequantized(rows) if table == self.replaced else rows


def divergence(reference: Float32, logits: Float32) -> float:
    """Mean KL(reference || logits) over all positions, in nats."""
    shares = np.exp(reference - reference.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    less = reference - logits
    # KL is the reference's mean of `less`, plus the change of log sum exp from reference to logits.
    mean = np.einsum("tv,tv->t", shares, less, dtype=np.float64)
    change = np.log(np.einsum("tv,tv->t", shares, np.exp(-less), dtype=np.float64))
    return float((mean + change).mean())


def _squared(errors: Float32, moment: Moment | None) -> float:
    """What these errors of weights do to their products, squared and summed; rows that are read as they are
    count as they are.
    """
    if moment is None:
        return float(np.vdot(errors, errors))
    start, total = 0, 0.0
    for square in moment:
        part = errors[:, start : start + len(square)]
        total += float(np.vdot(part @ square, part))
        start += len(square)
    return total
