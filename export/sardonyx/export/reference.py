"""What artifacts are measured against: the float32 artifact of the same source, made for the occasion."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sardonyx.export.build import Progress, build, described, unheard
from sardonyx.export.checkpoint import Checkpoint, open_checkpoint
from sardonyx.export.cost_graph import cost
from sardonyx.export.recipes import RECIPES
from sardonyx.runtime.errors import OutputError, RequestError
from sardonyx.runtime.manifest import MANIFEST_NAME, read_manifest
from sardonyx.runtime.neighbours import locate

REFERENCE = "fp32"
"""The recipe that all others are measured against."""


@contextmanager
def reference_at(path: Path, context: int, progress: Progress = unheard) -> Iterator[Path]:
    """What a path offers to measure against for as long as the block runs: a float32 artifact or a
    neighbour's folder as it is, or an artifact made of a source. Raises SourceError, RequestError for an
    artifact of another recipe, OutputError.
    """
    if not any(path.glob("*.safetensors")) and (graph := locate(str(path))):
        yield graph
        return
    if not (path / MANIFEST_NAME).is_file():
        checkpoint = open_checkpoint(path)
        require_space(Path(tempfile.gettempdir()), checkpoint, copies=1)
        with reference_of(checkpoint, None, context, progress) as reference:
            yield reference
        return
    recipe = read_manifest(path).recipe
    if recipe != REFERENCE:
        raise RequestError(
            f"{path}: recipe {recipe} is no reference; give the source, or its {REFERENCE} artifact"
        )
    yield path


@contextmanager
def reference_of(
    checkpoint: Checkpoint, place: Path | None, context: int | None, progress: Progress = unheard
) -> Iterator[Path]:
    """The reference artifact of a checkpoint for as long as the block runs: 4 bytes for each parameter, in
    `place` or else where the system keeps temporary files.
    """
    with tempfile.TemporaryDirectory(prefix="reference-", dir=place) as folder:
        build(Path(folder), checkpoint, RECIPES[REFERENCE], context, progress)
        yield Path(folder)


def require_space(place: Path, checkpoint: Checkpoint, copies: int) -> None:
    """Raises OutputError when there is no room for so many float32 copies of a model."""
    needed = copies * 4 * cost(described(checkpoint)).parameters
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OutputError(
            f"{place}: {free / 1e9:.1f} GB are free, and measuring takes up to {needed / 1e9:.1f} GB while "
            "it lasts (the float32 reference beside the artifact); make room, or export with --no-verify"
        )
