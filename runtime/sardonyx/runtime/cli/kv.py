"""The option of commands that answer: in which numbers keys and values are kept.

Scales for 8 bits are found when a model is exported, so each choice is an artifact of its own.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from sardonyx.runtime.errors import RequestError

CACHES = ("float32", "int8")
MARK = "-kv-"


def _option(*, shown: bool) -> Any:
    text = "Keep keys and values in float32, or in int8 of a quarter."
    return typer.Option("--kv", metavar="TYPE", help=text, hidden=not shown)


KV = Annotated[str | None, _option(shown=True)]
RareKV = Annotated[str | None, _option(shown=False)]
"""For commands that have a `--help-all`."""


def label(recipe: str, kv: str) -> str:
    """What the library calls an artifact of this recipe with this cache."""
    return recipe if kv == CACHES[0] else f"{recipe}{MARK}{kv}"


def recipe_and_kv(label: str) -> tuple[str, str]:
    """A label taken apart."""
    recipe, _, kv = label.partition(MARK)
    return recipe, kv or CACHES[0]


def kept_in(kv: str | None, model: str) -> str:
    """MODEL as a name of the artifact with this cache; as it is if None. Raises RequestError for a cache that
    is not known, or which this artifact has not.
    """
    if kv is None:
        return model
    if kv not in CACHES:
        raise RequestError(f"--kv {kv}: a cache of {kv!r} is not known; known: {', '.join(CACHES)}")
    from sardonyx.runtime.cli.first_use import model_and_recipe
    from sardonyx.runtime.fetch import PINNED
    from sardonyx.runtime.library import Library
    from sardonyx.runtime.manifest import read_manifest
    from sardonyx.runtime.neighbours import locate

    library = Library.of_user()
    name, named = model_and_recipe(model)
    wanted = f"{name}:{label(recipe_and_kv(named)[0], kv)}"
    known = library.artifact(wanted) or library.checkpoint(name) or name in PINNED
    if known and not Path(model).exists():
        return wanted
    if artifact := library.artifact(model):
        found = {state.dtype for state in read_manifest(artifact).states}
        if found != {kv}:
            raise RequestError(
                f"{model}: its cache is {' and '.join(sorted(found))}; export it again with --kv {kv}"
            )
    elif locate(model):
        raise RequestError(f"{model}: its cache is as it is; --kv is for what sardonyx exports")
    return model
