"""Bits for each weight so that all meet a budget: of divergence with the least bytes, or the reverse.

Divergences of single weights add up nearly to that of all (measured: 0.110 and 0.109), so that the choice is
a knapsack: all weights start in 4-bit blocks, and the one that pays most for its bytes goes to 8 bits next.
It knows no graph and writes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

from sardonyx.export.build import Progress, described
from sardonyx.export.calibration import TEXT, WIDTH, Calibration, windows_of_text
from sardonyx.export.certificate import Limits
from sardonyx.export.checkpoint import Checkpoint
from sardonyx.export.parallel import single_threaded_blas
from sardonyx.export.quantizers.nbits import NBits
from sardonyx.export.quantizers.none import Float
from sardonyx.export.recipes import EXPERTS, ROUTER, Recipe
from sardonyx.export.sensitivity import Sensitivity, Trials
from sardonyx.runtime.errors import RequestError, SourceError
from sardonyx.runtime.manifest import TOKENIZER_NAME

REHEARSAL = "rehearsal.txt"
"""What trials read: neither what moments are measured on nor what certificates are."""

REHEARSED = 256
"""Tokens of it, in two windows: every weight takes a trial of its own."""

FOUR, EIGHT = NBits(4), NBits(8)
ATTEMPTS = 4

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


def measured(checkpoint: Checkpoint, context: int | None, progress: Progress) -> list[Sensitivity]:
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
    trials = Trials(decoder, checkpoint, calibration, rehearsed, (FOUR, EIGHT))
    stages = list(decoder.stages())
    with single_threaded_blas():
        for done, stage in enumerate(stages, start=1):
            calibration.run(stage)
            trials.run(stage)
            progress(done, len(stages), f"trying each weight of {checkpoint.name} in 4 bits")
    return trials.sensitivities()


class Search:
    """Recipes for a budget, each after what came of those before."""

    def __init__(self, budget: Budget, sensitivities: Sequence[Sensitivity]) -> None:
        free = [s for s in sensitivities if not fnmatchcase(s.weight.name, ROUTER)]
        self._weights = sorted(free, key=_worth, reverse=True)
        self._sensitivity = {s.weight.name: s.kl[FOUR] for s in free}
        self._budget = budget
        self._raised = 0
        self._kl_target = budget.max_kl or 0.0
        self._excess = 0
        self._done = False
        self._best: tuple[float, int] | None = None

    def recipes(self) -> Iterator[Recipe]:
        """What to try next, until `met` says that it was the last. Raises RequestError for a budget of bytes
        below what all weights take in 4 bits.
        """
        for _ in range(ATTEMPTS):
            self._raised = self._enough()
            yield self._recipe()
            if self._done:
                return

    def too_large(self, size: int) -> bool:
        """Whether an artifact of so many bytes misses a budget of bytes; the next will be smaller."""
        if self._budget.max_bytes is None or size <= self._budget.max_bytes:
            return False
        if not self._raised:
            raise RequestError(
                f"{self._budget.max_bytes:,} bytes cannot be met: "
                f"with all weights in 4 bits it takes {size:,}"
            )
        self._excess += (2 if self._excess else 1) * (size - self._budget.max_bytes)
        return True

    def met(self, size: int, kl: float) -> bool:
        """Whether that is the last: the budget is met, or nothing is left to try."""
        self._best = kl, size
        self._done = (
            self._budget.max_kl is None or kl <= self._budget.max_kl or self._raised == len(self._weights)
        )
        if self._budget.max_kl is not None:
            self._kl_target *= 0.9 * self._budget.max_kl / kl
        return self._done

    def title(self, name: str) -> str:
        """For an error, what was tried, and the best that came of it."""
        kl, size = self._best or (0.0, 0)
        return (
            f"{name} within the budget (best found: mean KL {kl:.4g} with {size:,} bytes, "
            f"{self._raised} of {len(self._weights)} weights in 8 bits)"
        )

    def _recipe(self) -> Recipe:
        raised = {s.weight.name for s in self._weights[: self._raised]}
        rules = [(name, EIGHT if name in raised else FOUR) for name in self._sensitivity]
        others = ((ROUTER, Float()), (EXPERTS, FOUR), ("*", EIGHT))
        limits = Limits(kl_mean=self._budget.max_kl, noise=6, flips=0.2)
        return Recipe(NAME, "", (*rules, *others), limits, sensitivity=self._sensitivity)

    def _enough(self) -> int:
        """How many of the weights, the most worthwhile first, are to have 8 bits."""
        if self._budget.max_kl is not None:
            left = sum(s.kl[FOUR] for s in self._weights)
            for count, sensitivity in enumerate(self._weights):
                if left <= self._kl_target:
                    return count
                left += sensitivity.kl[EIGHT] - sensitivity.kl[FOUR]
            return len(self._weights)
        assert self._budget.max_bytes is not None
        room = self._budget.max_bytes - self._excess
        room -= sum(FOUR.stored_bytes(*_shape(s)) for s in self._weights)
        for count, sensitivity in enumerate(self._weights):
            room -= _more_bytes(sensitivity)
            if room < 0:
                return count
        return len(self._weights)


def _worth(sensitivity: Sensitivity) -> float:
    """Divergence that 8 bits spare, by the bytes that they take."""
    return (sensitivity.kl[FOUR] - sensitivity.kl[EIGHT]) / _more_bytes(sensitivity)


def _more_bytes(sensitivity: Sensitivity) -> int:
    shape = _shape(sensitivity)
    return EIGHT.stored_bytes(*shape) - FOUR.stored_bytes(*shape)


def _shape(sensitivity: Sensitivity) -> tuple[int, int]:
    outputs, inputs = sensitivity.weight.shape
    return outputs, inputs
