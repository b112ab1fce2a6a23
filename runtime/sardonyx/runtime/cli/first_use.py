"""From the MODEL of a command to a loaded LLM. What is known but not here is fetched and exported first."""

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from sardonyx.runtime.cli.options import Given
from sardonyx.runtime.cli.places import place_of

if TYPE_CHECKING:
    from sardonyx.runtime.llm import LLM
    from sardonyx.runtime.model import Memory

NOTHING: Given = MappingProxyType({})


def load(
    model: str,
    threads: int | None,
    exact: bool = False,
    memory: "Memory | None" = None,
    place: Given = NOTHING,
) -> "LLM":
    """Load the artifact that `model` means, on the provider that the options of `place` name. Raises
    SardonyxError.
    """
    from sardonyx.runtime.llm import LLM, MEMORY

    where = place_of(place)  # before anything is prepared for it
    return LLM.load(ready_artifact(model), threads=threads, exact=exact, memory=memory or MEMORY, place=where)


def is_model(word: str) -> bool:
    """Whether the word names a model that `ready_artifact` would find or make."""
    from sardonyx.runtime.fetch import PINNED
    from sardonyx.runtime.library import Library
    from sardonyx.runtime.neighbours import locate

    library = Library.of_user()
    name, _ = model_and_recipe(word)
    if name in PINNED or library.artifact(word) is not None or library.checkpoint(name) is not None:
        return True
    return locate(word) is not None


def ready_artifact(name: str) -> Path:
    """The artifact folder that `name` means: a path, or the name of a model, with or without `:recipe`; or
    the graph of a neighbour's folder, `FOLDER:VARIANT` where it has several.

    Pulls and exports into the library, with progress bars, what is not there. Raises SardonyxError.
    """
    from sardonyx.runtime.cli.export import prepare
    from sardonyx.runtime.cli.terminal import progress_bars, say
    from sardonyx.runtime.errors import ArtifactError
    from sardonyx.runtime.fetch import PINNED, pull
    from sardonyx.runtime.library import Library
    from sardonyx.runtime.neighbours import locate

    library = Library.of_user()
    if artifact := library.artifact(name) or locate(name):
        return artifact
    model, recipe = model_and_recipe(name)
    if library.checkpoint(model) or model in PINNED:
        say(f"{name}: first use, so it is prepared once; from then on it starts at once")
        with progress_bars() as progress:
            source = pull(model, library, progress)
        folder = library.artifact_folder(model, recipe)
        prepare(source, folder, recipe, model)
        return folder
    path = Path(name)
    if path.is_file() or (path / "config.json").is_file():
        raise ArtifactError(f"{name}: not an artifact; make one of it with: sardonyx export {name}")
    if path.is_dir():
        return path  # reading it will say what is wrong with it
    raise ArtifactError(f"{name}: no model of this name{library.hint(name, *PINNED)}")


def model_and_recipe(name: str) -> tuple[str, str]:
    """`model:recipe` taken apart, with the recipe that is meant where none is named."""
    from sardonyx.runtime.library import DEFAULT_RECIPE

    model, colon, recipe = name.rpartition(":")
    return (model, recipe) if colon and recipe else (name, DEFAULT_RECIPE)
