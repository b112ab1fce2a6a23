"""Builds and measures what a budget asks for, until no cheaper choice can be expected to meet it.

What the trials predicted is put right by what is measured: of divergence each measurement moves the aim, and
bounds from both sides what is still worth measuring. Sizes are known once something is built.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from sardonyx.export.budget import Assignment, Assignments, Budget, measured
from sardonyx.export.build import Progress, build, described
from sardonyx.export.certificate import Limits, checks, demand
from sardonyx.export.checkpoint import Checkpoint
from sardonyx.export.divergence import Divergence, concatenated
from sardonyx.export.reference import reference_of, require_space
from sardonyx.export.rounded_before import RoundedBefore
from sardonyx.export.verify import Scope, certify, diverge, store
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.library import stored_bytes
from sardonyx.runtime.llm import LLM, MAPPED
from sardonyx.runtime.manifest import Manifest, Tried, read_manifest, write_manifest

LIMITS = Limits(noise=6, flips=0.2)
"""What holds beside the budget."""

MEASUREMENTS = 6
"""The most that are made; three do where predictions are good."""

CLOSE = 0.995
"""The share of a budget of divergence that is aimed at: a prediction is not met to the last digit."""

WORTH = 0.003
"""What a choice must be smaller by to be worth measuring, as a share of the bytes."""

CERTIFICATE = 12 << 10
"""Bytes that are left for the certificate and what the manifest says of the search."""


def within_budget(
    folder: Path,
    checkpoint: Checkpoint,
    budget: Budget,
    context: int | None,
    scope: Scope,
    progress: Progress,
) -> Manifest:
    """Write the artifact to an empty folder, certificate and all. Raises VerificationFailed, with the best
    that was found, for a divergence out of reach; RequestError for bytes out of reach.
    """
    require_space(folder, checkpoint, copies=2)
    positions = context or described(checkpoint).context
    with (
        TemporaryDirectory(prefix="search-", dir=folder) as place,
        RoundedBefore(Path(place)) as rounded,
        reference_of(checkpoint, Path(place), positions, progress) as reference,
    ):
        trial = measured(checkpoint, context, rounded, progress)
        search = Search(Path(place), checkpoint, Assignments(trial), context, progress)
        if budget.max_kl is not None:
            search.down_to(budget.max_kl, Judge(reference, Path(place), scope, progress))
        elif budget.max_bytes is not None:
            search.up_to(budget.max_bytes)
        for path in search.best.iterdir():
            path.rename(folder / path.name)
        record = msgspec.structs.replace(
            read_manifest(folder), calibration=trial.calibration, searched=search.tried
        )
        write_manifest(folder, record)
        limits = msgspec.structs.replace(LIMITS, kl_mean=budget.max_kl)
        certificate = certify(folder, reference, limits, scope, progress, search.parts)
    manifest = store(folder, certificate)
    assert search.kept is not None
    demand(f"{checkpoint.name} within the budget (best found: {told(search.kept)})", checks(certificate))
    return manifest


class Judge:
    """Measures divergence from the reference, whose logits are computed once where there is room for them."""

    def __init__(self, reference: Path, place: Path, scope: Scope, progress: Progress) -> None:
        self._reference = LLM.load(reference, place=MAPPED)
        self._scope = scope
        self._progress = progress
        texts = scope.texts(self._reference)
        tokens = sum(len(window) for windows in texts.windows.values() for window in windows)
        needed = 4 * tokens * self._reference.manifest.vocab_size
        self._kept = place if needed < shutil.disk_usage(place).free / 2 else None

    def parts(self, folder: Path) -> Mapping[str, Divergence]:
        """By kind of text."""
        llm = LLM.load(folder, place=self._scope.place, check=False)
        texts = self._scope.texts(llm)
        return diverge(self._reference, llm, texts, self._progress, self._kept)


class Search:
    """Assignments that are built one after the other; the best of them stays.

    `best` is its folder, `kept` what is known of it, and `parts` what was measured, if anything was.
    """

    def __init__(
        self,
        place: Path,
        checkpoint: Checkpoint,
        assignments: Assignments,
        context: int | None,
        progress: Progress,
    ) -> None:
        self.best = place / "best"
        self.parts: Mapping[str, Divergence] | None = None
        self.tried: list[Tried] = []
        self.kept: Tried | None = None
        self._made = place / "made"
        self._checkpoint = checkpoint
        self._assignments = assignments
        self._context = context
        self._progress = progress

    def down_to(self, max_kl: float, judge: Judge) -> None:
        """Find the fewest bytes that diverge no more; if all in 8 bits does, that is what is left."""
        aim, missed, met = max_kl, 0, 0
        for left in reversed(range(MEASUREMENTS)):
            chosen = self._assignments.most if not (met or left) else self._above(missed, aim)
            if met and chosen.bytes > met * (1 - WORTH):
                return
            self._build(chosen)
            parts = judge.parts(self._made)
            kl = float(concatenated(list(parts.values())).kl.mean())
            self._note(chosen, kl)
            if kl <= max_kl:
                met = chosen.bytes
                self._keep(parts)
            elif chosen.bytes == self._assignments.most.bytes:
                self._keep(parts)
                return
            else:
                missed = chosen.bytes
            aim = CLOSE * max_kl * chosen.kl / kl

    def up_to(self, max_bytes: int) -> None:
        """Find the least predicted divergence within so many bytes. Raises RequestError if not even 4 bits
        for all are.
        """
        beside, room = 0, max_bytes - CERTIFICATE
        chosen = None
        for _ in range(MEASUREMENTS):
            before, chosen = chosen, self._assignments.within(room - beside)
            if chosen == before:
                break
            size = self._build(chosen)
            self._note(chosen, None)
            if size <= room:
                self._keep(None)
            elif chosen == self._assignments.least:
                raise RequestError(
                    f"{max_bytes:,} bytes cannot be met: with all weights in 4 bits it takes "
                    f"{size + CERTIFICATE:,}"
                )
            beside = max(beside, size - chosen.bytes)
        if self.kept is None:
            raise RequestError(f"{max_bytes:,} bytes were not met in {MEASUREMENTS} attempts; allow more")

    def _above(self, missed: int, aim: float) -> Assignment:
        """The cheapest that is predicted to reach the aim, and is not known to miss it."""
        chosen, room = self._assignments.reaching(aim), float(missed)
        while chosen.bytes <= missed:
            room *= 1 + WORTH
            chosen = self._assignments.within(round(room))
        return chosen

    def _build(self, chosen: Assignment) -> int:
        """Its bytes."""
        shutil.rmtree(self._made, ignore_errors=True)
        self._made.mkdir()
        recipe = self._assignments.recipe(chosen, LIMITS)
        build(self._made, self._checkpoint, recipe, self._context, self._progress)
        return stored_bytes(self._made)

    def _note(self, chosen: Assignment, kl: float | None) -> None:
        tried = Tried(len(chosen.raised), self._assignments.count, stored_bytes(self._made), chosen.kl, kl)
        self.tried.append(tried)
        self._progress(1, 1, told(tried))

    def _keep(self, parts: Mapping[str, Divergence] | None) -> None:
        shutil.rmtree(self.best, ignore_errors=True)
        self._made.rename(self.best)
        self.parts = parts
        self.kept = self.tried[-1]


def told(tried: Tried) -> str:
    """In a line."""
    found = f"predicted mean KL {tried.predicted:.4g}"
    if tried.kl is not None:
        found += f", measured {tried.kl:.4g}"
    return f"{tried.raised} of {tried.weights} weights in 8 bits: {tried.bytes:,} bytes, {found}"
