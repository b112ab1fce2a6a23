"""`sardonyx chat`: a conversation on the terminal, or line by line from a pipe."""

from pathlib import Path
from typing import Annotated

import typer

from sardonyx.runtime.cli.algorithms import ALGORITHM_OPTIONS
from sardonyx.runtime.cli.cache_memory import RareCacheMemory, bytes_of
from sardonyx.runtime.cli.kv import RareKV, kept_in
from sardonyx.runtime.cli.options import Adapter, Given, HelpAll, taking
from sardonyx.runtime.cli.places import PLACE_OPTIONS
from sardonyx.runtime.cli.sampling import SHOWS_LOGPROBS, sampling_options
from sardonyx.runtime.errors import RequestError


@taking("place", PLACE_OPTIONS)
@taking("algorithm", ALGORITHM_OPTIONS)
@taking("sampling", sampling_options(leave_out=SHOWS_LOGPROBS))
def command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Artifact folder, model name or NAME:RECIPE.")
    ] = None,
    system: Annotated[str, typer.Option(metavar="TEXT", help="Instructions before the conversation.")] = "",
    cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The instructions that `cache pack` kept.")
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="CPU threads.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Same bits however text is fed; slower.")] = False,
    cache_memory: RareCacheMemory = None,
    kv: RareKV = None,
    adapter: Adapter = None,
    help_all: HelpAll = False,
    *,
    sampling: Given,
    algorithm: Given,
    place: Given,
) -> None:
    """Talk with a model.

    Ctrl-C stops an answer, Ctrl-D or /exit leaves, /help tells the rest.
    """
    from sardonyx.runtime.cli import algorithms
    from sardonyx.runtime.cli.cache import instructions
    from sardonyx.runtime.cli.conversation import Conversation
    from sardonyx.runtime.cli.first_use import load
    from sardonyx.runtime.cli.lines import Lines
    from sardonyx.runtime.cli.sampling import with_given
    from sardonyx.runtime.cli.terminal import say
    from sardonyx.runtime.library import DEFAULT_MODEL, Library
    from sardonyx.runtime.model import Memory
    from sardonyx.runtime.prefixes import Reuse

    algorithms.check(algorithm)
    if cache and system:
        raise RequestError("--system and --cache both bring instructions; choose one of them")
    memory = Memory(bytes_of(cache_memory), Reuse(answers=True))
    llm = load(kept_in(kv, model or DEFAULT_MODEL), threads, exact, memory, place).adapted(adapter)
    if llm.chat_template is None:
        raise RequestError(
            f"{llm.manifest.name} has no chat template; continue texts with: sardonyx run --raw"
        )
    chosen = algorithms.algorithm(
        algorithm,
        lambda other: load(other, threads, exact, memory, place),
        lambda text: [{"role": "user", "content": text}],
    )
    if cache:
        system = instructions(llm, cache)
    conversation = Conversation(llm, with_given(llm.default_params, sampling), system, chosen)
    lines = Lines(Library.of_user().root / "chat_history", conversation.commands)
    say(f"{model or DEFAULT_MODEL} ({llm.manifest.recipe}). /help shows what you can do, Ctrl-D leaves.")
    for text in lines:
        if not conversation.take(text):
            break
