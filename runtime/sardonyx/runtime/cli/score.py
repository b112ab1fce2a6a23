"""`sardonyx score`: which of several texts is likeliest to follow a prompt."""

from typing import TYPE_CHECKING, Annotated, cast

import typer

from sardonyx.runtime.cli.options import Given, taking
from sardonyx.runtime.cli.places import PLACE_OPTIONS

if TYPE_CHECKING:
    from sardonyx.runtime.scores import Normalization


@taking("place", PLACE_OPTIONS)
def command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Artifact folder, model name or NAME:RECIPE.")
    ],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text before the candidates.")],
    candidate: Annotated[
        list[str], typer.Option(metavar="TEXT", help="What may follow, its space too; may be repeated.")
    ],
    normalize: Annotated[
        str | None, typer.Option(metavar="WHAT", help="Divide by length, in tokens or bytes.")
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="CPU threads.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
    *,
    place: Given,
) -> None:
    """Say which text is likeliest to follow a prompt.

    The likeliest goes to stdout, and the scores of all to stderr: the log
    probability of each, and how likely it is if it is one of them.
    """
    import json

    from sardonyx.runtime.cli.first_use import load
    from sardonyx.runtime.cli.run import utf8
    from sardonyx.runtime.cli.terminal import say, write_answer

    by = cast("Normalization | None", normalize)  # score says so if it is not
    scores = load(model, threads, place=place).score(
        utf8(prompt), [utf8(text) for text in candidate], normalize=by
    )
    found = list(zip(scores.candidates, scores.probabilities, strict=True))
    if as_json:
        figures = [
            {"text": one.text, "logprob": one.logprob, "score": one.score, "probability": share}
            for one, share in found
        ]
        print(json.dumps({"best": scores.best.text, "candidates": figures}, ensure_ascii=False))
        return
    write_answer([scores.best.text])
    for one, share in found:
        say(f"{one.score:10.4f}  {share:6.1%}  {one.text}")
