"""`sardonyx tune`: which recipe is the fastest on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sardonyx.runtime.cli.tuning import Candidate, Timing, Work

CANDIDATES = ("q8", "int8", "int4", "int4-small")
BLOCKS = (32,)
"""Others are faster, but the kernel then computes a batch otherwise than a text alone: no certificate."""


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A .gguf file, a Hugging Face folder, or a name that `list` shows."
        ),
    ],
    recipe: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A candidate; may be repeated. [q8, int8, int4, int4-small]"),
    ] = None,
    block: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="4-bit weights to a scale; may be repeated. [32]"),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(metavar="N", min=1, help="CPU threads; may be repeated. [1 and all cores]"),
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Prompt of the request.")] = 256,
    new_tokens: Annotated[int, typer.Option(metavar="N", min=2, help="Its answer.")] = 64,
    seconds: Annotated[float, typer.Option(metavar="S", min=0, help="Time for all of it.")] = 120,
) -> None:
    """Time recipes on this machine, and recommend one.

    Each candidate is exported to a temporary folder, neither calibrated nor
    measured: that changes numbers, not speed. Then all are timed in turns, for
    one round at least, until the time is up.
    """
    import tempfile
    from time import monotonic

    from sardonyx.runtime.cli.extras import extra
    from sardonyx.runtime.cli.terminal import progress_bars, say
    from sardonyx.runtime.cli.tuning import Work, recommended, timed
    from sardonyx.runtime.library import Library
    from sardonyx.runtime.threads import usable_cores

    with extra("export"):
        from sardonyx.export.api import Options, export
        from sardonyx.export.recipes import RECIPES

    end = monotonic() + seconds
    candidates = _candidates(recipe or CANDIDATES, block or BLOCKS)
    path, work = Library.of_user().source(source), Work(prompt_tokens, new_tokens)
    counts = sorted(set(threads or (1, usable_cores())))
    with tempfile.TemporaryDirectory(prefix="sardonyx-tune-") as place, progress_bars() as progress:
        artifacts = {one: Path(place) / f"{one.recipe}-{one.block}" for one in candidates}
        for one, folder in artifacts.items():
            options = Options(verify=False, calibrate=False, block=one.block)
            export(path, folder, recipe=one.recipe, options=options, progress=progress)
        timings = timed(artifacts, counts, work, lambda: monotonic() >= end, progress)
    limits = {one.recipe: RECIPES[one.recipe].limits.kl_mean or 0.0 for one in candidates}
    best = recommended(timings, work, limits)
    print(_table(timings, work, limits))
    say(f"medians of {len(best.decode)} rounds; the request: {prompt_tokens} tokens, {new_tokens} new ones")
    chosen = best.candidate
    size = "" if chosen.block in (None, 32) else f" --block {chosen.block}"
    print(f"recommended: --recipe {chosen.recipe}{size}, with --threads {best.threads}")


def _candidates(recipes: Sequence[str], blocks: Sequence[int]) -> "list[Candidate]":
    """Recipes that are calibrated in blocks of every size: others promise too little error for larger ones.
    Raises RequestError for an unknown recipe.
    """
    from sardonyx.export.recipes import RECIPES
    from sardonyx.runtime.cli.tuning import Candidate
    from sardonyx.runtime.errors import RequestError

    names, sizes = list(dict.fromkeys(recipes)), list(dict.fromkeys(blocks))
    if unknown := [name for name in names if name not in RECIPES]:
        raise RequestError(f"recipe {unknown[0]!r} is not known; known: {', '.join(RECIPES)}")
    return [
        Candidate(name, size) for name in names for size in (sizes if RECIPES[name].calibrated else [None])
    ]


def _table(timings: "list[Timing]", work: "Work", limits: dict[str, float]) -> str:
    from statistics import median

    from sardonyx.runtime.cli.terminal import size_text, table_text

    heading = ("RECIPE", "BLOCK", "THREADS", "SIZE", "PREFILL", "DECODE", "REQUEST", "MEAN KL AT MOST")
    rows = [
        (
            timing.candidate.recipe,
            str(timing.candidate.block or "-"),
            str(timing.threads),
            size_text(timing.size),
            f"{median(timing.prefill):.0f} tokens/s",
            f"{median(timing.decode):.1f} tokens/s",
            f"{timing.seconds(work):.2f} s",
            f"{limits[timing.candidate.recipe]:g}",
        )
        for timing in sorted(timings, key=lambda timing: timing.seconds(work))
    ]
    return table_text([heading, *rows])
