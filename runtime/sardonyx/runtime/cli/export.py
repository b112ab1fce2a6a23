"""`sardonyx export`: turn a checkpoint into an artifact.

This and `inspect.py` are the only doors from the runtime to `sardonyx.export`.
"""

from pathlib import Path
from typing import Annotated

import typer

from sardonyx.runtime.errors import MissingExtra
from sardonyx.runtime.library import DEFAULT_RECIPE, Library


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A .gguf file, a Hugging Face folder, or a name that `list` shows."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where to; else the library.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(metavar="NAME", help="How to quantize: fp32, int8, int4.")
    ] = DEFAULT_RECIPE,
    context: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Shorten the context to N tokens.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace DIR if it exists.")] = False,
) -> None:
    """Turn a trained model into a quantized ONNX artifact."""
    from sardonyx.runtime.cli.terminal import say, size_text
    from sardonyx.runtime.library import stored_bytes

    library = Library.of_user()
    path = library.source(source)
    model = Path(source).resolve().stem if path == Path(source) else source
    folder = out or library.artifact_folder(model, recipe)
    export_checkpoint(path, folder, recipe, context, force)
    say(f"exported {source} as {recipe} ({size_text(stored_bytes(folder))}): {folder}")


def export_checkpoint(
    source: Path, out: Path, recipe: str, context: int | None = None, force: bool = False
) -> None:
    """Export with progress bars. Raises SardonyxError, MissingExtra without the packages it needs."""
    from sardonyx.runtime.cli.terminal import progress_bars

    try:
        from sardonyx.export.api import export
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("sardonyx"):
            raise
        raise MissingExtra(error.name, "export") from None
    what = f"exporting {source.name} as {recipe}"
    with progress_bars() as show:
        export(
            source,
            out,
            recipe=recipe,
            context=context,
            force=force,
            progress=lambda done, total, tensor: show(done, total, what),
        )
