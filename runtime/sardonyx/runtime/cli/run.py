"""`sardonyx run`: one prompt, one answer, or several."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast

import typer

from sardonyx.runtime.cli.algorithms import ALGORITHM_OPTIONS
from sardonyx.runtime.cli.cache_memory import RareCacheMemory, bytes_of
from sardonyx.runtime.cli.kv import RareKV, kept_in
from sardonyx.runtime.cli.options import Adapter, Given, HelpAll, refuse_both, taking
from sardonyx.runtime.cli.places import PLACE_OPTIONS
from sardonyx.runtime.cli.sampling import sampling_options
from sardonyx.runtime.errors import RequestError

if TYPE_CHECKING:
    from sardonyx.runtime.llm import LLM
    from sardonyx.runtime.prompts import Message, Prompt

SEVERAL = "Several answers"


@taking("place", PLACE_OPTIONS)
@taking("algorithm", ALGORITHM_OPTIONS)
@taking("sampling", sampling_options())
def command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Artifact folder, model name or NAME:RECIPE.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="The text; - or nothing reads stdin.")
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="Instructions before all else.")] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Begin with what `cache pack` kept.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text itself: no chat template.")] = False,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="CPU threads.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Same bits however text is fed; slower.")] = False,
    cache_memory: RareCacheMemory = None,
    kv: RareKV = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print answers and figures as JSON.")] = False,
    adapter: Adapter = None,
    help_all: HelpAll = False,
    n: Annotated[
        int, typer.Option("-n", metavar="N", min=1, help="Give N answers.", rich_help_panel=SEVERAL)
    ] = 1,
    best_of: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Draw N, give the likeliest.", rich_help_panel=SEVERAL),
    ] = None,
    self_consistency: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Draw N, vote on what they find.", rich_help_panel=SEVERAL),
    ] = None,
    extract: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Vote on its last match. [a number]", rich_help_panel=SEVERAL),
    ] = None,
    *,
    sampling: Given,
    algorithm: Given,
    place: Given,
) -> None:
    """Answer one prompt, as it is written.

    Without MODEL: smollm2-135m, prepared on first use. Figures go to stderr.
    """
    from sardonyx.runtime.cli import algorithms
    from sardonyx.runtime.cli.asking import Ask
    from sardonyx.runtime.cli.first_use import load
    from sardonyx.runtime.cli.sampling import with_given
    from sardonyx.runtime.model import Memory

    _check_beginnings(system, raw, cache)
    algorithms.check(algorithm)
    ask = Ask(n, best_of, self_consistency, extract, as_json)
    ask.check(algorithm)
    name, text = model_and_prompt([word for word in (model, prompt) if word is not None])
    memory = Memory(bytes_of(cache_memory))
    llm = load(kept_in(kv, name), threads, exact, memory, place).adapted(adapter)
    framed = Frame(llm, utf8(system or ""), raw, llm.load_prefix(cache) if cache else "")
    chosen = algorithms.algorithm(algorithm, lambda m: load(m, threads, exact, memory, place), framed.prompt)
    ask(llm, framed.prompt(text), with_given(llm.default_params, sampling), chosen)


def _check_beginnings(system: str | None, raw: bool, cache: Path | None) -> None:
    if raw and system:
        raise RequestError("--system belongs to the chat template, which --raw leaves out")
    refuse_both({"--system": bool(system), "--cache": cache is not None})


class Frame(NamedTuple):
    """What becomes of a text before a model is given it."""

    llm: "LLM"
    system: str
    raw: bool
    known: "Prompt" = ""
    """What is before it: the messages or the text of a saved prefix."""

    def prompt(self, text: str) -> "Prompt":
        """The text as a prompt. Says so if there is no chat template for it."""
        from sardonyx.runtime.cli.terminal import say

        name = self.llm.manifest.name
        question: Message = {"role": "user", "content": text}
        match self.known:
            case str(known) if known or self.raw:
                return known + text
            case [Mapping(), *_] as messages:
                if self.raw:
                    raise RequestError(
                        "--cache holds messages, which are for the chat template: leave out --raw"
                    )
                return [*cast("Sequence[Message]", messages), question]
            case [*_]:
                raise RequestError("--cache holds token ids, which a text cannot follow here")
        if self.llm.chat_template is None:
            if self.system:
                raise RequestError(f"{name} has no chat template, so there is no place for --system")
            say(f"{name} has no chat template: it continues the text as it is (as with --raw)")
            return text
        instructions = [{"role": "system", "content": self.system}] if self.system else []
        return [*instructions, question]


def model_and_prompt(words: list[str]) -> tuple[str, str]:
    """MODEL and PROMPT of the words typed. One alone is the prompt, unless it names a model.

    Raises RequestError when there is no prompt, or nothing in it.
    """
    from sardonyx.runtime.cli.first_use import is_model
    from sardonyx.runtime.library import DEFAULT_MODEL

    if len(words) == 1:
        words = [words[0], "-"] if is_model(words[0]) else [DEFAULT_MODEL, words[0]]
    model, text = words or (DEFAULT_MODEL, "-")
    text = standard_input() if text == "-" else utf8(text)
    if not text.strip():
        raise RequestError('the prompt is empty; give one: sardonyx run "What is an onyx?"')
    return model, text


def utf8(argument: str) -> str:
    """An argument as the text that was typed, though the locale may have read its bytes otherwise."""
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        raise RequestError(f"{argument!a} is not UTF-8 text") from None


def standard_input() -> str:
    if sys.stdin.isatty():
        raise RequestError('no prompt; give one: sardonyx run "What is an onyx?"')
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise RequestError(f"the prompt on stdin is not UTF-8 text (byte {error.start})") from None
