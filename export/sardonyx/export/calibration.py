"""What the layers of a network multiply, seen while it reads a text that no quality is measured on.

Windows of text go through the network stage by stage, in float32, so that only one stage's weights are held.
What was seen in a stage is known until the next: just long enough for somebody to write it.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.resources import files
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np

from sardonyx.export.checkpoint import Checkpoint, Float32
from sardonyx.export.numpy_graph import Float64, NumpyGraph
from sardonyx.export.parallel import in_parallel
from sardonyx.export.weights import CHUNK_ELEMENTS, Moment, Sample, check_finite
from sardonyx.models.decoder import Decoder
from sardonyx.models.graph import Activation, Expert, Linear, MixtureSpec, Weight
from sardonyx.runtime.errors import SourceError
from sardonyx.runtime.manifest import Calibrated
from sardonyx.runtime.tokenizer import Tokenizer

TEXT = "calibration.txt"

WIDTH = 256
"""Tokens of a window."""

TOKENS = 8192
"""The most that are read. SmolLM2-135M as int4-small: mean KL 0.117 of 2560, 0.108 of 5632, 0.101 of all."""

SPAN = 2048
"""Inputs whose correlations are measured together: 16 MiB for a square of them."""

HELD = 1 << 28
"""Bytes of a stage's weights that are held while windows go through it; others are read for each."""

SAMPLED = 16
"""Tokens of each window that are kept as a sample, its first among them."""

Stage = Callable[[Any, Any], Any]
"""One of `Decoder.stages()`."""

Tokens = Sequence[int]

Wanted = Callable[[Weight], bool]
"""Whether anybody will ask for something about what a weight multiplies."""


def nobody(weight: Weight) -> bool:
    """Nobody will."""
    return False


class Weights(Protocol):
    """Where a window finds weights."""

    def __call__(self, weight: Weight) -> Float32:
        """All of it."""

    def rows(self, table: Weight, ids: Tokens) -> Float32:
        """Some rows of a table, which may be too large to be held."""


class StageWeights:
    """The weights of one stage as they are, read once for all windows as far as there is room."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._held: dict[str, Float32] = {}
        self._lock = Lock()

    def __call__(self, weight: Weight) -> Float32:
        """Raises SourceError for weights that are no numbers."""
        with self._lock:  # windows ask at the same time, and the first is to read for all
            if weight.name in self._held:
                return self._held[weight.name]
            rows = self._read(weight)
            if sum(held.nbytes for held in self._held.values()) + rows.nbytes <= HELD:
                self._held[weight.name] = rows
            return rows

    def _read(self, weight: Weight) -> Float32:
        tensor = self._checkpoint.tensor(weight.name)
        whole = np.empty(weight.shape, np.float32)
        step = max(1, CHUNK_ELEMENTS // prod(weight.shape[1:]))
        for start in range(0, len(whole), step):
            rows = tensor.rows(start, min(start + step, len(whole)))
            check_finite(self._checkpoint, rows, weight.name)
            whole[start : start + step] = rows
        return whole

    def rows(self, table: Weight, ids: Tokens) -> Float32:
        tensor = self._checkpoint.tensor(table.name)
        return np.concatenate([tensor.rows(token, token + 1) for token in ids])


class Window(NumpyGraph):
    """One window's way through a stage, remembering what each weight multiplied."""

    def __init__(self, decoder: Decoder, weights: Weights, tokens: Tokens, *, to_logits: bool) -> None:
        super().__init__(decoder, weights, np.float32)
        self.take(tokens)
        self.multiplied: dict[tuple[Weight, ...], Float32] = {}
        self.embedded: Weight | None = None
        self.logits: Float32 | None = None
        self._weights = weights
        self._tokens = tokens
        self._to_logits = to_logits
        self._selected = False

    def embed(self, table: Weight) -> Float64:
        self.embedded = table
        return self._weights.rows(table, self._tokens).astype(self._precision, copy=False)

    def linear(self, x: Float64, *layers: Linear) -> tuple[Float64, ...]:
        self.multiplied[tuple(layer.weight for layer in layers)] = x.astype(np.float32, copy=False)
        if self._selected and not self._to_logits:  # of the head all is known now
            return (x,) * len(layers)
        return super().linear(x, *layers)

    def activate(self, x: Float64, function: Activation) -> Float64:
        # The error function has no vector form in numpy; its usual approximation is off by 5e-4 at most.
        return super().activate(x, "gelu_tanh" if function == "gelu" else function)

    def mixture(self, x: Float64, scores: Float64, experts: Sequence[Expert], spec: MixtureSpec) -> Float64:
        known = dict(self.multiplied)  # an expert sees too few tokens to be measured
        mixed = super().mixture(x, scores, experts, spec)
        self.multiplied = known
        return mixed

    def select(self, x: Float64) -> Float64:
        self._selected = True
        return x

    def output(self, logits: Float64, hidden: Float64) -> None:
        self.logits = logits.astype(np.float32, copy=False)


class Calibration:
    """Windows of tokens on their way through a network. Of the weights that are `wanted` moments are known,
    of those `sampled` samples.
    """

    def __init__(
        self,
        decoder: Decoder,
        checkpoint: Checkpoint,
        windows: Sequence[Tokens],
        wanted: Wanted,
        sampled: Wanted = nobody,
    ) -> None:
        self._decoder = decoder
        self._wanted = wanted
        self._sampled = sampled
        self._checkpoint = checkpoint
        self._windows = windows
        self._values: list[Any] = [None] * len(windows)
        self._moments: dict[Weight, Moment] = {}
        self._samples: dict[Weight, Sample] = {}

    def run(self, stage: Stage) -> None:
        """Take all windows through the next stage. Raises SourceError for weights that are no numbers."""
        weights = StageWeights(self._checkpoint)

        def through(index: int) -> Window:
            window = Window(self._decoder, weights, self._windows[index], to_logits=False)
            with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at below
                self._values[index] = stage(window, self._values[index])
            return window

        sums: dict[tuple[Weight, ...], MomentSum] = defaultdict(MomentSum)
        rows: dict[tuple[Weight, ...], list[Float32]] = defaultdict(list)
        largest: dict[tuple[Weight, ...], list[Float32]] = defaultdict(list)
        for window in in_parallel(through, range(len(self._windows))):
            with np.errstate(over="ignore", invalid="ignore"):
                for multipliers, x in window.multiplied.items():
                    if any(map(self._wanted, multipliers)):
                        sums[multipliers].add(x)
                    if any(map(self._sampled, multipliers)):
                        rows[multipliers].append(x[:: max(1, len(x) // SAMPLED)].copy())
                        largest[multipliers].append(np.abs(x).max(0))
        self._samples = {
            weight: Sample(np.concatenate(rows[stack]), np.max(found, axis=0))
            for stack, found in largest.items()
            for weight in stack
        }
        self._moments = {weight: found.mean() for stack, found in sums.items() for weight in stack}
        seen = {weight: [sample.largest] for weight, sample in self._samples.items()}
        for weight, numbers in (*self._moments.items(), *seen.items()):
            if not all(np.isfinite(array).all() for array in numbers):
                raise SourceError(
                    f"{self._checkpoint.path}: what {weight.name} multiplies grows beyond float32 on the "
                    "calibration text; export with --no-calibrate"
                )

    @property
    def record(self) -> Calibrated:
        """What was read, for the manifest."""
        return record_of(self._windows)

    @property
    def multipliers(self) -> list[Weight]:
        """The weights that multiplied something in the last stage."""
        return list(self._moments)

    def measured(self, weight: Weight) -> Moment | None:
        """The moment of what a weight multiplied in the last stage, if it did."""
        return self._moments.get(weight)

    def sample(self, weight: Weight) -> Sample | None:
        """A sample of what a weight multiplied in the last stage, if it did."""
        return self._samples.get(weight)


class MomentSum:
    """Sum of `x x^T`, in squares along the diagonal."""

    def __init__(self) -> None:
        self._count = 0
        self._squares: list[Float32] = []

    def add(self, x: Float32) -> None:
        """Rows of x, `[some, inputs]`."""
        parts = [x[:, at : at + SPAN] for at in range(0, x.shape[1], SPAN)]
        if not self._squares:
            self._squares = [np.zeros((part.shape[1], part.shape[1]), np.float32) for part in parts]
        for square, part in zip(self._squares, parts, strict=True):
            square += part.T @ part
        self._count += len(x)

    def mean(self) -> Moment:
        return [square / np.float32(self._count) for square in self._squares]


def record_of(windows: Sequence[Tokens]) -> Calibrated:
    """Windows that were read, for a manifest."""
    ids = np.array([token for window in windows for token in window], "<u4")
    return Calibrated(tokens=len(ids), sha256=hashlib.sha256(ids.tobytes()).hexdigest())


def windows_of_text(
    name: str, folder: Path, bos: int | None, width: int, most: int | None = None
) -> list[list[int]]:
    """A text of this package in the tokens of the tokenizer in `folder`, cut into windows of `width`: up to
    `most` tokens (TOKENS, if not said), from all over the text.

    A beginning-of-text token starts each window if the tokenizer starts texts with it. None if the text is
    shorter than a window.
    """
    tokenizer = Tokenizer.load(folder)
    text = files("sardonyx.export").joinpath(name).read_text("utf-8")
    tokens = tokenizer.encode(text, add_special_tokens=False)
    first = [bos] if bos is not None and tokenizer.encode("")[:1] == [bos] else []
    step = max(1, width - len(first))
    starts = range(0, len(tokens) - step + 1, step)
    count = min(len(starts), max(1, (TOKENS if most is None else most) // width))
    chosen = [starts[index * len(starts) // count] for index in range(count)]
    return [[*first, *tokens[at : at + step]] for at in chosen]
