"""Bits for each weight so that all meet a budget: of divergence with the least bytes, or the reverse.

Divergences of single weights add up nearly to that of all (measured: 0.110 and 0.109), so that the choice is
a knapsack: all weights start in 4-bit blocks, and 8 bits are bought for those where they spare most. It knows
no graph and writes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

from sardonyx.export.build import Progress, described
from sardonyx.export.calibration import TEXT, WIDTH, Calibration, windows_of_text
from sardonyx.export.certificate import Limits
from sardonyx.export.checkpoint import Checkpoint
from sardonyx.export.knapsack import Knapsack
from sardonyx.export.parallel import single_threaded_blas
from sardonyx.export.quantizers.nbits import NBits
from sardonyx.export.quantizers.none import Float
from sardonyx.export.recipes import EXPERTS, ROUTER, Recipe
from sardonyx.export.rounded_before import RoundedBefore
from sardonyx.export.sensitivity import Sensitivity, Trials
from sardonyx.runtime.errors import RequestError, SourceError
from sardonyx.runtime.manifest import TOKENIZER_NAME, Calibrated

REHEARSAL = "rehearsal.txt"
"""What trials read: neither what moments are measured on nor what certificates are."""

REHEARSED = 256
"""Tokens of it, in two windows: every weight takes a trial of its own."""

FOUR, EIGHT = NBits(4), NBits(8)

NAME = "budget"
"""Recipe in the manifest."""


@dataclass(frozen=True)
class Budget:
    """At most so much divergence (mean KL on the project's texts, nats per token), or so many bytes of files.

    Raises RequestError for both at once, for neither, and for less than nothing.
    """

    max_kl: float | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        if (self.max_kl is None) == (self.max_bytes is None):
            raise RequestError(
                "a budget is either of divergence or of bytes: give one of --max-kl, --max-bytes"
            )
        if (self.max_kl or self.max_bytes or 0) <= 0:
            raise RequestError("a budget must be above zero")


@dataclass(frozen=True)
class Trial:
    """What was seen of each weight, on what, and the roundings that were made on the way."""

    sensitivities: Sequence[Sensitivity]
    calibration: Calibrated
    rounded: RoundedBefore


def measured(
    checkpoint: Checkpoint, context: int | None, rounded: RoundedBefore, progress: Progress
) -> Trial:
    """Take every weight of a checkpoint through its trial. Raises SourceError for a tokenizer that makes too
    few tokens of the texts.
    """
    decoder, tokenizer = described(checkpoint), checkpoint.tokenizer()
    width = min(WIDTH, context or decoder.context)
    with TemporaryDirectory() as folder:
        (Path(folder) / TOKENIZER_NAME).write_bytes(tokenizer.tokenizer_json)
        seen = windows_of_text(TEXT, Path(folder), tokenizer.bos_id, width)
        rehearsed = windows_of_text(
            REHEARSAL, Path(folder), tokenizer.bos_id, min(width, REHEARSED // 2), REHEARSED
        )
    if not seen or not rehearsed:
        raise SourceError(f"{checkpoint.path}: its tokenizer makes too few tokens of a text to measure on")
    calibration = Calibration(decoder, checkpoint, seen, lambda weight: True)
    trials = Trials(decoder, checkpoint, calibration, rehearsed, (replace(FOUR, before=rounded), EIGHT))
    stages = list(decoder.stages())
    with single_threaded_blas():
        for done, stage in enumerate(stages, start=1):
            calibration.run(stage)
            trials.run(stage)
            progress(done, len(stages), f"trying each weight of {checkpoint.name} in 4 bits")
    return Trial(trials.sensitivities(), calibration.record, rounded)


@dataclass(frozen=True)
class Assignment:
    """Which weights have 8 bits; the others have 4."""

    raised: frozenset[str]
    kl: float
    """Predicted: what each weight was seen to do, added up."""
    bytes: int
    """Of all these weights."""


class Assignments:
    """Those that are worth considering: none has less divergence than they for as many bytes."""

    def __init__(self, trial: Trial) -> None:
        free = [s for s in trial.sensitivities if not fnmatchcase(s.weight.name, ROUTER)]
        self._free = free
        self._four = replace(FOUR, before=trial.rounded)
        self._knapsack = Knapsack([_more_bytes(s) for s in free], [s.kl[FOUR] - s.kl[EIGHT] for s in free])
        self.count = len(free)
        """Weights that are free to have 4 bits or 8."""
        self.least, self.most = self._of(frozenset()), self._of(frozenset(range(len(free))))

    def reaching(self, kl: float) -> Assignment:
        """With the fewest bytes of all that are predicted to diverge no more; if none is, 8 bits for all."""
        things = self._knapsack.gaining(self.least.kl - kl)
        return self.most if things is None else self._of(things)

    def within(self, size: int) -> Assignment:
        """With the least predicted divergence of all that take no more bytes; if none is, 4 bits for all."""
        return self._of(self._knapsack.within(size - self.least.bytes))

    def recipe(self, assignment: Assignment, limits: Limits) -> Recipe:
        """As which it is built, with roundings that the trials made."""
        rules = [
            (s.weight.name, EIGHT if s.weight.name in assignment.raised else self._four) for s in self._free
        ]
        others = ((ROUTER, Float()), (EXPERTS, FOUR), ("*", EIGHT))
        sensitivity = {s.weight.name: s.kl[FOUR] for s in self._free}
        return Recipe(NAME, "", (*rules, *others), limits, calibrate=False, sensitivity=sensitivity)

    def _of(self, things: frozenset[int]) -> Assignment:
        bits = [EIGHT if place in things else FOUR for place in range(len(self._free))]
        chosen = list(zip(self._free, bits, strict=True))
        return Assignment(
            frozenset(s.weight.name for s, quantizer in chosen if quantizer == EIGHT),
            sum(s.kl[quantizer] for s, quantizer in chosen),
            sum(quantizer.stored_bytes(*_shape(s)) for s, quantizer in chosen),
        )


def _more_bytes(sensitivity: Sensitivity) -> int:
    shape = _shape(sensitivity)
    return EIGHT.stored_bytes(*shape) - FOUR.stored_bytes(*shape)


def _shape(sensitivity: Sensitivity) -> tuple[int, int]:
    outputs, inputs = sensitivity.weight.shape
    return outputs, inputs
