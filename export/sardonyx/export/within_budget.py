"""Builds and measures what a budget asks for, until it is met or nothing is left to try."""

from pathlib import Path

from sardonyx.export.budget import ATTEMPTS, Budget, Search, measured
from sardonyx.export.build import Progress, build, described
from sardonyx.export.certificate import checks, demand
from sardonyx.export.checkpoint import Checkpoint
from sardonyx.export.reference import reference_of, require_space
from sardonyx.export.verify import Scope, certify, store
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.manifest import Manifest


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
    search = Search(budget, measured(checkpoint, context, progress))
    certificate = None
    positions = context or described(checkpoint).context
    with reference_of(checkpoint, folder.parent, positions, progress) as reference:
        for recipe in search.recipes():
            for path in folder.iterdir():
                path.unlink()
            build(folder, checkpoint, recipe, context, progress)
            size = sum(path.stat().st_size for path in folder.iterdir())
            if search.too_large(size):
                continue
            certificate = certify(folder, reference, recipe.limits, scope, progress)
            if search.met(size, certificate.overall.kl_mean):
                break
    if certificate is None:
        raise RequestError(f"{budget.max_bytes:,} bytes were not met in {ATTEMPTS} attempts; allow more")
    manifest = store(folder, certificate)
    demand(search.title(checkpoint.name), checks(certificate))
    return manifest
