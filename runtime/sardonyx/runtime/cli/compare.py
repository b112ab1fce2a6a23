"""`sardonyx compare`: artifacts side by side, in a table and in a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from sardonyx.runtime.cli.options import Given, taking
from sardonyx.runtime.cli.places import PLACE_OPTIONS

if TYPE_CHECKING:
    from sardonyx.export.certificate import Certificate, TextQuality
    from sardonyx.runtime.cli.measure import Speed


@dataclass(frozen=True)
class Compared:
    """One artifact. `quality` is None where it has no certificate."""

    name: str
    recipe: str
    bytes: int
    quality: "TextQuality | None"
    prefill_tokens_per_s: float
    decode_tokens_per_s: float


@taking("place", PLACE_OPTIONS)
def command(
    models: Annotated[list[str], typer.Argument(metavar="DIR...", help="Artifact folders or model names.")],
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw size, quality and speed as a picture.")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Prompt to time.")] = 256,
    new_tokens: Annotated[int, typer.Option(metavar="N", min=2, help="Tokens to generate.")] = 32,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Turns that all take.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    *,
    place: Given,
) -> None:
    """Compare artifacts by size, quality and speed.

    Quality is read from the certificates. Speed is measured now, in turns, so
    that a slow minute hits all alike.
    """
    import json

    import msgspec

    from sardonyx.runtime.cli import picture
    from sardonyx.runtime.cli.extras import extra
    from sardonyx.runtime.cli.first_use import ready_artifact
    from sardonyx.runtime.library import stored_bytes

    with extra("export"):
        from sardonyx.export.certificate import stored_certificate
    if plot:
        picture.ready(plot)
    folders = [ready_artifact(model) for model in models]
    certificates = [stored_certificate(folder) for folder in folders]
    speeds = measured(folders, prompt_tokens, new_tokens, repeats, place)
    compared = [
        _compared(folder, stored_bytes(folder), certificate, speed)
        for folder, certificate, speed in zip(folders, certificates, speeds, strict=True)
    ]
    print(json.dumps(msgspec.to_builtins(compared), indent=2) if as_json else _for_people(compared))
    _say_what_cannot_be_compared(certificates)
    if plot:
        picture.draw(compared, plot)


def measured(
    folders: Sequence[Path], prompt_tokens: int, new_tokens: int, repeats: int, place: Given
) -> list[list["Speed"]]:
    """For each artifact its speed in each turn."""
    from sardonyx.runtime.cli.first_use import load
    from sardonyx.runtime.cli.measure import measure
    from sardonyx.runtime.cli.terminal import progress_bars

    llms = [load(str(folder), None, place=place) for folder in folders]
    speeds: list[list[Speed]] = [[] for _ in llms]
    with progress_bars() as progress:
        for turn in range(repeats):
            for which, (llm, own) in enumerate(zip(llms, speeds, strict=True)):
                progress(turn * len(llms) + which, repeats * len(llms), "measuring speed")
                own += measure(llm, [prompt_tokens], new_tokens, 1, lambda done, total: None, turn)
    return speeds


def _compared(
    folder: Path, size: int, certificate: "Certificate | None", speeds: Sequence["Speed"]
) -> Compared:
    from sardonyx.runtime.manifest import read_manifest

    return Compared(
        name=folder.name,
        recipe=read_manifest(folder).recipe,
        bytes=size,
        quality=certificate.overall if certificate else None,
        prefill_tokens_per_s=median(speed.prefill_tokens_per_s for speed in speeds),
        decode_tokens_per_s=median(speed.decode_tokens_per_s for speed in speeds),
    )


def _for_people(compared: Sequence[Compared]) -> str:
    from sardonyx.runtime.cli.terminal import table_text

    heading = ("ARTIFACT", "RECIPE", "SIZE", "MEAN KL", "P99 KL", "TOP-1", "PERPLEXITY", "RATIO")
    return table_text([(*heading, "PREFILL", "DECODE"), *map(_row, compared)])


def _row(one: Compared) -> tuple[str, ...]:
    from sardonyx.runtime.cli.terminal import size_text

    quality = one.quality
    figures = (
        ("not measured", *"----")
        if quality is None
        else (
            f"{quality.kl_mean:.4f} ± {quality.kl_mean_error:.4f}",
            f"{quality.kl_p99:.3f}",
            f"{quality.top1:.1%}",
            f"{quality.perplexity:.2f} ± {quality.perplexity_error:.2f}",
            f"{quality.perplexity_ratio:.4f}",
        )
    )
    speeds = (f"{one.prefill_tokens_per_s:.0f} tokens/s", f"{one.decode_tokens_per_s:.1f} tokens/s")
    return one.name, one.recipe, size_text(one.bytes), *figures, *speeds


def _say_what_cannot_be_compared(certificates: Sequence["Certificate | None"]) -> None:
    from sardonyx.runtime.cli.terminal import say

    known = [certificate for certificate in certificates if certificate]
    if len({certificate.source.sha256 for certificate in known}) > 1:
        say("they are made of different sources: each diverges from a reference of its own")
    if len({certificate.texts_sha256 for certificate in known}) > 1:
        say("they were measured on different texts: their qualities cannot be compared")
    for convention in {certificate.convention for certificate in known}:
        say(f"texts: {convention}")
