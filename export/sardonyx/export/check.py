"""Whether a finished artifact is what it says it is, as far as that can be told here and now."""

from pathlib import Path

from sardonyx.export.build import Progress, unheard
from sardonyx.export.certificate import (
    UNLIMITED,
    Certificate,
    Check,
    Limits,
    checks,
    invariant_checks,
    quality_checks,
    stored_certificate,
    structure_checks,
)
from sardonyx.export.recipes import RECIPES
from sardonyx.export.reference import reference_at
from sardonyx.export.structure import structure
from sardonyx.export.verify import Scope, certify, feeding
from sardonyx.runtime.integrity import checking
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.manifest import read_manifest
from sardonyx.runtime.neighbours import read


def check(
    folder: Path, against: Path | None, scope: Scope, progress: Progress = unheard
) -> tuple[Certificate | None, list[Check]]:
    """Check files, structure and ways of feeding; with `against` measure quality as well.

    The certificate is a new one with `against`, else the artifact's own, if it has one, whose figures are
    taken as they are. A neighbour's folder promises nothing: it is held to what is asked for. Raises
    ArtifactError for files that are not what was written.
    """
    neighbour = read(folder)
    if neighbour is not None:
        manifest, stored, limits = neighbour.manifest, None, UNLIMITED
        files = Check("files", f"{len(neighbour.files)} whole", "whole", met=True)
    else:
        manifest = read_manifest(folder)
        with checking(folder, manifest):
            stored = stored_certificate(folder)
            limits = stored.limits if stored else _limits(manifest.recipe)
        files = Check("files", f"{len(manifest.files)} as written", "as written", met=True)
    if against is not None:
        with reference_at(against, manifest.context_length, progress) as reference:
            certificate = certify(folder, reference, limits, scope, progress)
        return certificate, [files, *checks(certificate)]
    fed = feeding(LLM.load(folder, check=False, place=scope.place), limits, progress)
    return stored, [
        files,
        *(quality_checks(stored.overall, limits) if stored else ()),
        *invariant_checks(fed),
        *structure_checks(structure(folder, manifest)),
    ]


def _limits(recipe: str) -> Limits:
    return RECIPES[recipe].limits if recipe in RECIPES else UNLIMITED
