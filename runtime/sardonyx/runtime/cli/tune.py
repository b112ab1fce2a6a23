"""`sardonyx tune`: which recipe is the fastest on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sardonyx.runtime.cli.tuning import Timing, Work

CANDIDATES = ("q8", "int8", "int4", "int4-small")


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
    from sardonyx.runtime.errors import RequestError
    from sardonyx.runtime.library import Library
    from sardonyx.runtime.threads import usable_cores

    with extra("export"):
        from sardonyx.export.api import Options, export
        from sardonyx.export.recipes import RECIPES

    end = monotonic() + seconds
    names = list(dict.fromkeys(recipe or CANDIDATES))
    if unknown := [name for name in names if name not in RECIPES]:
        raise RequestError(f"recipe {unknown[0]!r} is not known; known: {', '.join(RECIPES)}")
    path, work = Library.of_user().source(source), Work(prompt_tokens, new_tokens)
    counts = sorted(set(threads or (1, usable_cores())))
    with tempfile.TemporaryDirectory(prefix="sardonyx-tune-") as place, progress_bars() as progress:
        artifacts = {name: Path(place) / name for name in names}
        for name, folder in artifacts.items():
            options = Options(verify=False, calibrate=False)
            export(path, folder, recipe=name, options=options, progress=progress)
        timings = timed(artifacts, counts, work, lambda: monotonic() >= end, progress)
    limits = {name: RECIPES[name].limits.kl_mean or 0.0 for name in names}
    best = recommended(timings, work, limits)
    print(_table(timings, work, limits))
    say(f"medians of {len(best.decode)} rounds; the request: {prompt_tokens} tokens, {new_tokens} new ones")
    print(f"recommended: --recipe {best.recipe}, with --threads {best.threads}")


def _table(timings: "list[Timing]", work: "Work", limits: dict[str, float]) -> str:
    from statistics import median

    from sardonyx.runtime.cli.terminal import size_text, table_text

    heading = ("RECIPE", "THREADS", "SIZE", "PREFILL", "DECODE", "REQUEST", "MEAN KL AT MOST")
    rows = [
        (
            timing.recipe,
            str(timing.threads),
            size_text(timing.size),
            f"{median(timing.prefill):.0f} tokens/s",
            f"{median(timing.decode):.1f} tokens/s",
            f"{timing.seconds(work):.2f} s",
            f"{limits[timing.recipe]:g}",
        )
        for timing in sorted(timings, key=lambda timing: timing.seconds(work))
    ]
    return table_text([heading, *rows])
