"""`sardonyx bench`: how fast an artifact runs here."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sardonyx.runtime.cli.measure import Speed


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
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="CPU threads.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure how fast a model runs here.

    Figures are medians over repeats, with random tokens for a prompt. Outside
    is the share of the time spent outside of onnxruntime.
    """
    import json
    from dataclasses import asdict
    from time import perf_counter

    from sardonyx.runtime.cli.first_use import load, ready_artifact
    from sardonyx.runtime.cli.measure import measure, peak_memory_bytes
    from sardonyx.runtime.cli.terminal import progress_bars
    from sardonyx.runtime.library import DEFAULT_MODEL

    artifact = ready_artifact(model or DEFAULT_MODEL)  # preparing it is not loading it
    started = perf_counter()
    llm = load(str(artifact), threads)
    load_s = perf_counter() - started
    with progress_bars() as progress:
        speeds = measure(
            llm,
            prompt_tokens or [128, 1024],
            new_tokens,
            repeats,
            lambda done, total: progress(done, total, f"measuring {llm.manifest.name}"),
        )
    figures = {
        "model": llm.manifest.name,
        "recipe": llm.manifest.recipe,
        "load_s": load_s,
        "peak_memory_bytes": peak_memory_bytes(),
        "speeds": [asdict(speed) for speed in speeds],
    }
    print(json.dumps(figures, indent=2) if as_json else _for_people(figures, speeds))


def _for_people(figures: dict[str, Any], speeds: "list[Speed]") -> str:
    from sardonyx.runtime.cli.terminal import size_text, table_text

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
    memory = size_text(figures["peak_memory_bytes"]) if figures["peak_memory_bytes"] else "not known here"
    return (
        f"{figures['model']} ({figures['recipe']}): loaded in {figures['load_s']:.2f} s, "
        f"peak memory {memory}\n\n{table_text([heading, *rows])}"
    )
