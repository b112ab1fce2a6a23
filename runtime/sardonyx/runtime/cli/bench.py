"""`sardonyx bench`: how fast an artifact runs here."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sardonyx.runtime.cli.cache_memory import CacheMemory, bytes_of
from sardonyx.runtime.cli.options import Given, taking
from sardonyx.runtime.cli.places import PLACE_OPTIONS

if TYPE_CHECKING:
    from sardonyx.runtime.cli.measure import Speed
    from sardonyx.runtime.concurrency import Crowd, Joining
    from sardonyx.runtime.model import Memory


@taking("place", PLACE_OPTIONS)
def command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Artifact folder, model name or NAME:RECIPE.")
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    *,
    place: Given,
) -> None:
    """Measure how fast a model runs here.

    Figures are medians over repeats, with random tokens for a prompt. Outside
    is the share of the time spent outside of onnxruntime. Of several answers
    at once, decode is of all together, and a gap is the time between two tokens
    of one.
    """
    import json
    from dataclasses import asdict
    from time import perf_counter

    from sardonyx.runtime.cli.first_use import load, ready_artifact
    from sardonyx.runtime.cli.measure import measure, peak_memory_bytes
    from sardonyx.runtime.cli.terminal import progress_bars
    from sardonyx.runtime.library import DEFAULT_MODEL

    answers, memory = _counts(concurrency), _memory(cache_memory)
    artifact = ready_artifact(model or DEFAULT_MODEL)  # preparing it is not loading it
    started = perf_counter()
    llm = load(str(artifact), threads, memory=memory, place=place)
    figures = {"model": llm.manifest.name, "recipe": llm.manifest.recipe, "load_s": perf_counter() - started}
    with progress_bars() as progress:

        def on_run(done: int, total: int) -> None:
            progress(done, total, f"measuring {llm.manifest.name}")

        if answers:
            from sardonyx.runtime.concurrency import Crowds, measure_crowds

            length = _only(prompt_tokens or [128])
            crowds, joining = measure_crowds(Crowds(llm, length, new_tokens), answers, repeats, on_run)
            measured = {"concurrency": [asdict(crowd) for crowd in crowds], "joining": asdict(joining)}
            text = _crowds_text(crowds, joining)
        else:
            speeds = measure(llm, prompt_tokens or [128, 1024], new_tokens, repeats, on_run)
            measured = {"speeds": [asdict(speed) for speed in speeds]}
            text = _speeds_text(speeds)
    figures |= {"peak_memory_bytes": peak_memory_bytes(), **measured}
    print(json.dumps(figures, indent=2) if as_json else f"{_heading(figures)}\n\n{text}")


def _memory(size: str | None) -> "Memory":
    """As much as usual, but for a limit of the cache."""
    from sardonyx.runtime.llm import MEMORY

    return replace(MEMORY, cache=bytes_of(size))


def _counts(concurrency: str | None) -> list[int]:
    """The numbers of answers at once. Raises RequestError for what is none."""
    from sardonyx.runtime.errors import RequestError

    counts = [count.strip() for count in (concurrency or "").split(",") if concurrency is not None]
    if not all(count.isdecimal() and int(count) > 0 for count in counts):
        raise RequestError(f"--concurrency {concurrency}: numbers above 0 are needed, as in 1,2,4,8")
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


def _speeds_text(speeds: "list[Speed]") -> str:
    from sardonyx.runtime.cli.terminal import table_text

    heading = ("PROMPT", "FIRST TOKEN", "PREFILL", "DECODE", "OUTSIDE")
    rows = [
        (
            f"{speed.prompt_tokens} tokens",
            f"{speed.first_token_s:.3f} s",
            f"{speed.prefill_tokens_per_s:.1f} tokens/s",
            f"{speed.decode_tokens_per_s:.1f} tokens/s",
            f"{speed.outside_share:.1%}",
        )
        for speed in speeds
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
