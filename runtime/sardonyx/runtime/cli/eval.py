"""`sardonyx eval`: how well a model predicts a text."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sardonyx.runtime.cli.options import Given, taking
from sardonyx.runtime.cli.places import PLACE_OPTIONS, place_of

if TYPE_CHECKING:
    from sardonyx.export.certificate import TextQuality


@taking("place", PLACE_OPTIONS)
def command(
    model: Annotated[str, typer.Argument(metavar="DIR", help="Artifact folder or model name.")],
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Text in UTF-8; may be repeated. [sardonyx's own]"),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Also diverge from the source or its fp32 artifact.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    *,
    place: Given,
) -> None:
    """Measure perplexity on texts, and with --against KL divergence.

    Perplexities can be compared only where windows are cut alike, as the last
    line says.
    """
    import json
    from contextlib import nullcontext

    from sardonyx.runtime.cli.extras import extra
    from sardonyx.runtime.cli.first_use import ready_artifact
    from sardonyx.runtime.cli.terminal import progress_bars
    from sardonyx.runtime.llm import LLM, MAPPED

    with extra("export"):
        from sardonyx.export.divergence import concatenated, summary
        from sardonyx.export.reference import reference_at
        from sardonyx.export.verify import Scope, diverge
    llm = LLM.load(ready_artifact(model), place=place_of(place))
    texts = Scope(files=tuple(text or ())).texts(llm)
    context = llm.manifest.context_length
    with (
        progress_bars() as progress,
        reference_at(against, context, progress) if against else nullcontext() as reference,
    ):
        other = LLM.load(reference, place=MAPPED) if reference else llm
        parts = diverge(other, llm, texts, progress)
    qualities = {kind: summary(part, len(texts.windows[kind])) for kind, part in parts.items()}
    qualities["all"] = summary(concatenated(list(parts.values())), texts.count)
    if as_json:
        figures = {
            kind: _figures(quality, with_kl=against is not None) for kind, quality in qualities.items()
        }
        print(json.dumps({"convention": texts.convention, "texts": figures}, indent=2))
    else:
        print(f"{_for_people(qualities, with_kl=against is not None)}\n\nTexts: {texts.convention}")


def _figures(quality: "TextQuality", *, with_kl: bool) -> dict[str, Any]:
    import msgspec

    figures: dict[str, Any] = msgspec.to_builtins(quality)
    alone = ("tokens", "windows", "perplexity", "perplexity_error")
    return figures if with_kl else {name: figures[name] for name in alone}


def _for_people(qualities: Mapping[str, "TextQuality"], *, with_kl: bool) -> str:
    from sardonyx.runtime.cli.quality import quality_rows
    from sardonyx.runtime.cli.terminal import table_text

    if with_kl:
        return table_text(quality_rows(qualities))
    rows = [
        (kind, f"{quality.tokens:,}", f"{quality.perplexity:.2f} ± {quality.perplexity_error:.2f}")
        for kind, quality in qualities.items()
    ]
    return table_text([("TEXT", "TOKENS", "PERPLEXITY"), *rows])
