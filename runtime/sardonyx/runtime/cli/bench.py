"""`sardonyx bench`: how fast an artifact runs here."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sardonyx.runtime.cli.cache_memory import CacheMemory, bytes_of
from sardonyx.runtime.cli.kv import KV, kept_in
from sardonyx.runtime.cli.options import Given, taking
from sardonyx.runtime.cli.places import PLACE_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sardonyx.runtime.cli.measure import Speed
    from sardonyx.runtime.concurrency import Crowd, Joining
    from sardonyx.runtime.llm import LLM
    from sardonyx.runtime.model import Memory


@taking("place", PLACE_OPTIONS)
def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Artifact folders, model names or NAME:RECIPE."),
    ] = None,
    prompt_tokens: Annotated[
        list[int] | None,
        typer.Option(metavar="N", min=1, help="Prompt length; may be repeated. [128 and 1024]"),
    ] = None,
    new_tokens: Annotated[int, typer.Option(metavar="N", min=2, help="Tokens to generate.")] = 64,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Runs of each length.")] = 3,
    concurrency: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="Measure so many answers at once instead, as in 1,2,4,8,16."),
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="CPU threads.")] = None,
    cache_memory: CacheMemory = None,
    kv: KV = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    *,
    place: Given,
) -> None:
    """Measure how fast a model runs here, or several side by side.

    Figures are medians over repeats, with random tokens for a prompt. Several
    models take turns, and each is compared with the first. Outside
    is the share of the time spent outside of onnxruntime. Of several answers
    at once, decode is of all together, and a gap is the time between two tokens
    of one.
    """
    from dataclasses import asdict

    from sardonyx.runtime.cli.measure import Work, measure_all
    from sardonyx.runtime.cli.terminal import progress_bars
    from sardonyx.runtime.concurrency import Crowds, measure_crowds
    from sardonyx.runtime.library import DEFAULT_MODEL

    names = models or [DEFAULT_MODEL]
    answers, memory = _counts(concurrency, names), _memory(cache_memory)
    llms, figures = zip(*[_loaded(kept_in(kv, name), threads, memory, place) for name in names], strict=True)
    title = f"measuring {', '.join(dict.fromkeys(llm.manifest.name for llm in llms))}"
    with progress_bars() as progress:

        def on_run(done: int, total: int) -> None:
            progress(done, total, title)

        if answers:
            crowds = Crowds(llms[0], _only(prompt_tokens or [128]), new_tokens)
            found, joining = measure_crowds(crowds, answers, repeats, on_run)
            figures[0]["concurrency"] = [asdict(crowd) for crowd in found]
            figures[0]["joining"] = asdict(joining)
            text = _crowds_text(found, joining)
        else:
            speeds = measure_all(llms, Work(prompt_tokens or [128, 1024], new_tokens, repeats), on_run)
            for facts, own in zip(figures, speeds, strict=True):
                facts["speeds"] = [asdict(speed) for speed in own]
            text = _speeds_text(names, speeds)
    _show(figures, None if as_json else text)


def _show(figures: "Sequence[dict[str, Any]]", text: str | None) -> None:
    """Print a text below headings; without one, the figures: an object, or a list of one for each model."""
    import json

    from sardonyx.runtime.cli.measure import peak_memory_bytes

    for facts in figures:
        facts["peak_memory_bytes"] = peak_memory_bytes()
    if text is None:
        print(json.dumps(figures if len(figures) > 1 else figures[0], indent=2))
    else:
        print("\n".join(map(_heading, figures)), text, sep="\n\n")


def _loaded(name: str, threads: int | None, memory: "Memory", place: Given) -> "tuple[LLM, dict[str, Any]]":
    """A model, and what is known of it so far."""
    from time import perf_counter

    from sardonyx.runtime.cli.first_use import load, ready_artifact

    artifact = ready_artifact(name)  # preparing it is not loading it
    started = perf_counter()
    llm = load(str(artifact), threads, memory=memory, place=place)
    seconds = perf_counter() - started
    return llm, {"model": llm.manifest.name, "recipe": llm.manifest.recipe, "load_s": seconds}


def _memory(size: str | None) -> "Memory":
    """As much as usual, but for a limit of the cache."""
    from sardonyx.runtime.llm import MEMORY

    return replace(MEMORY, cache=bytes_of(size))


def _counts(concurrency: str | None, models: "list[str]") -> list[int]:
    """The numbers of answers at once. Raises RequestError for what is none, and for several models."""
    from sardonyx.runtime.errors import RequestError

    counts = [count.strip() for count in (concurrency or "").split(",") if concurrency is not None]
    if not all(count.isdecimal() and int(count) > 0 for count in counts):
        raise RequestError(f"--concurrency {concurrency}: numbers above 0 are needed, as in 1,2,4,8")
    if counts and len(models) > 1:
        raise RequestError(f"--concurrency takes one MODEL, not {len(models)}")
    return [int(count) for count in counts]


def _only(lengths: list[int]) -> int:
    """Raises RequestError if there are several."""
    from sardonyx.runtime.errors import RequestError

    if len(lengths) > 1:
        raise RequestError(f"--concurrency takes one --prompt-tokens, not {len(lengths)}")
    return lengths[0]


def _heading(figures: dict[str, Any]) -> str:
    from sardonyx.runtime.cli.terminal import size_text

    memory = size_text(figures["peak_memory_bytes"]) if figures["peak_memory_bytes"] else "not known here"
    return (
        f"{figures['model']} ({figures['recipe']}): loaded in {figures['load_s']:.2f} s, peak memory {memory}"
    )


def _speeds_text(names: "list[str]", speeds: "list[list[Speed]]") -> str:
    """A line for each prompt length; of several models one for each, with their ratios to the first."""
    from sardonyx.runtime.cli.terminal import table_text

    several = len(names) > 1
    heading = ("PROMPT", *["MODEL"] * several, "FIRST TOKEN", "PREFILL", "DECODE", "OUTSIDE")
    rows = [
        (
            f"{speed.prompt_tokens} tokens",
            *[name] * several,
            f"{speed.first_token_s:.3f} s",
            f"{speed.prefill_tokens_per_s:.1f} tokens/s" + f" ({speed.prefill_ratio:.2f}x)" * several,
            f"{speed.decode_tokens_per_s:.1f} tokens/s" + f" ({speed.decode_ratio:.2f}x)" * several,
            f"{speed.outside_share:.1%}",
        )
        for of_length in zip(*speeds, strict=True)
        for name, speed in zip(names, of_length, strict=True)
    ]
    return table_text([heading, *rows])


def _crowds_text(crowds: "list[Crowd]", joining: "Joining") -> str:
    from sardonyx.runtime.cli.terminal import table_text

    heading = ("ANSWERS", "DECODE", "FIRST TOKEN", "GAP P50", "GAP P95", "OUTSIDE")
    rows = [
        (
            str(crowd.answers),
            f"{crowd.decode_tokens_per_s:.1f} tokens/s",
            f"{crowd.first_token_s:.3f} s",
            f"{1000 * crowd.gap_p50_s:.1f} ms",
            f"{1000 * crowd.gap_p95_s:.1f} ms",
            f"{crowd.outside_share:.1%}",
        )
        for crowd in crowds
    ]
    return (
        f"{table_text([heading, *rows])}\n\n"
        f"A prompt of {joining.prompt_tokens} tokens joins {joining.answers} answers: first token after "
        f"{joining.first_token_s:.3f} s, their gaps {1000 * joining.gap_before_s:.1f} ms before, then "
        f"{1000 * joining.gap_p50_s:.1f} ms, {1000 * joining.gap_longest_s:.1f} ms at most"
    )
