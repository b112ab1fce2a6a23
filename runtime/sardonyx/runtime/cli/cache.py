"""`sardonyx cache`: computed beginnings of prompts in files, where `run` and `chat` then begin."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sardonyx.runtime.cli.options import Given, taking
from sardonyx.runtime.cli.places import PLACE_OPTIONS
from sardonyx.runtime.errors import OutputError, RequestError

if TYPE_CHECKING:
    from sardonyx.runtime.llm import LLM
    from sardonyx.runtime.prompts import Prompt

EVERYTHING = 1 << 62
"""Bytes; as much as the context holds."""


def about() -> None:
    """Keep computed beginnings of prompts in files."""


@taking("place", PLACE_OPTIONS)
def pack(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A text file, or - for stdin.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to.")],
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="MODEL", help="As for `run`.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The text itself, not as instructions.")] = False,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="CPU threads.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    *,
    place: Given,
) -> None:
    """Compute instructions (or any text, --raw) once, and keep the result.

    Then `run --cache FILE QUESTION` and `chat --cache FILE` follow these
    instructions without computing them again. A file belongs to the artifact
    that made it.
    """
    from sardonyx.runtime.cli.first_use import load
    from sardonyx.runtime.cli.terminal import say, size_text
    from sardonyx.runtime.library import DEFAULT_MODEL
    from sardonyx.runtime.model import Memory
    from sardonyx.runtime.prefixes import Reuse

    if out.exists() and not force:
        raise OutputError(f"{out} exists already; choose another file or give --force to replace it")
    words = _read(text)
    llm = load(model or DEFAULT_MODEL, threads, memory=Memory(reuse=Reuse(EVERYTHING)), place=place)
    prompt: Prompt = words
    if not raw:
        if llm.chat_template is None:
            raise RequestError(
                f"{llm.manifest.name} has no chat template, so there is no place for instructions; give --raw"
            )
        prompt = [{"role": "system", "content": words}]
    tokens = llm.save_prefix(prompt, out)
    say(f"{out}: {tokens} tokens, {size_text(out.stat().st_size)}, for {llm.manifest.name}")


COMMANDS = {"pack": pack}


def instructions(llm: "LLM", file: Path) -> str:
    """The instructions that a file holds, known to the model from now on. Raises RequestError if it holds
    something else, ArtifactError if it is not of this model.
    """
    match llm.load_prefix(file):
        case [{"role": "system", "content": str(text)}]:
            return text
    raise RequestError(f"{file}: holds a text, not instructions; it goes with: sardonyx run")


def _read(name: str) -> str:
    from sardonyx.runtime.cli.run import standard_input
    from sardonyx.runtime.text_file import read_text

    if name != "-":
        return read_text(Path(name))
    if not (words := standard_input()).strip():
        raise RequestError("there is nothing on stdin; give it a text")
    return words
