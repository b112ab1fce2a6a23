"""`sardonyx export`: turn a checkpoint into an artifact."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sardonyx.runtime.cli.kv import label, recipe_and_kv
from sardonyx.runtime.library import DEFAULT_RECIPE, Library

if TYPE_CHECKING:
    from sardonyx.export.api import Options


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="A .gguf file, a Hugging Face folder, or a name that `list` shows."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where to; else the library.")]
Recipe = Annotated[str, typer.Option(metavar="NAME", help="fp32, fp16, q8, int8, int4, int4-small or gguf.")]
Context = Annotated[int | None, typer.Option(metavar="N", min=1, help="Shorten the context to N tokens.")]
Force = Annotated[bool, typer.Option("--force", help="Replace DIR if it exists.")]
Verify = Annotated[
    bool, typer.Option("--verify/--no-verify", help="Measure it against float32, and certify it.")
]
Thorough = Annotated[bool, typer.Option("--thorough", help="Measure on all texts.")]
KeepFailed = Annotated[bool, typer.Option("--keep-failed", help="Keep what misses its limits as DIR.failed.")]
HiddenStates = Annotated[
    bool, typer.Option("--hidden-states", help="Put them out, too: contrastive search needs them.")
]
Adapter = Annotated[
    Path | None, typer.Option("--adapter", metavar="DIR", help="Merge a LoRA adapter, as PEFT saves it.")
]
Adapters = Annotated[
    list[Path] | None,
    typer.Option("--adapters", metavar="DIR", help="Keep one beside it, to be switched; again for more."),
]
Layout = Annotated[
    str | None, typer.Option(metavar="NAME", help="Write it for genai or transformers.js instead.")
]
Via = Annotated[
    str | None, typer.Option(metavar="PROGRAM", help="Have optimum trace it: for any architecture.")
]
Calibrate = Annotated[
    bool, typer.Option("--calibrate/--no-calibrate", help="Round 4-bit weights by what they multiply.")
]
Target = Annotated[
    str, typer.Option(metavar="NAME", help="Where it will run: cpu, cuda, webgpu or portable (any other).")
]
KV = Annotated[str, typer.Option(metavar="TYPE", help="The cache: float32, or int8 in a quarter of it.")]

Block = Annotated[
    int | None, typer.Option(metavar="N", help="Weights to a scale, where there are blocks [32].")
]
MaxKL = Annotated[
    float | None, typer.Option("--max-kl", metavar="X", help="Search the fewest bits within this divergence.")
]
MaxBytes = Annotated[
    int | None, typer.Option("--max-bytes", metavar="N", help="Search the best bits within this size.")
]


def command(
    source: Source,
    out: Out = None,
    recipe: Recipe = DEFAULT_RECIPE,
    context: Context = None,
    force: Force = False,
    verify: Verify = True,
    thorough: Thorough = False,
    keep_failed: KeepFailed = False,
    hidden_states: HiddenStates = False,
    adapter: Adapter = None,
    adapters: Adapters = None,
    via: Via = None,
    layout: Layout = None,
    calibrate: Calibrate = True,
    kv: KV = "float32",
    target: Target = "cpu",
    max_kl: MaxKL = None,
    max_bytes: MaxBytes = None,
    block: Block = None,
) -> None:
    """Turn a trained model into a quantized ONNX artifact.

    What is written is measured before it gets its name: what misses the limits
    of its recipe ends with exit code 1. Measuring takes 4 bytes of disk for each
    parameter while it lasts.
    """
    from sardonyx.runtime.cli.extras import extra
    from sardonyx.runtime.cli.quality import quality_line
    from sardonyx.runtime.cli.terminal import say, size_text
    from sardonyx.runtime.errors import RequestError
    from sardonyx.runtime.library import stored_bytes

    with extra("export"):
        from sardonyx.export.api import Options
        from sardonyx.export.budget import NAME, Budget
        from sardonyx.export.certificate import stored_certificate

    library = Library.of_user()
    path = library.source(source)
    model = Path(source).resolve().stem if path == Path(source) else source
    model += f"+{adapter.resolve().name}" if adapter is not None else ""
    if layout is not None and out is None:
        raise RequestError(f"--layout {layout} is for another program: say where it looks, with --out DIR")
    budget = None if max_kl is None and max_bytes is None else Budget(max_kl, max_bytes)
    if budget and recipe != DEFAULT_RECIPE:
        raise RequestError("--recipe and a budget exclude each other: a budget makes a recipe of its own")
    name = label(NAME if budget else recipe, kv) + f"-{target}" * (target != "cpu")
    if block is not None:
        name += f"-block-{block}"
    folder = out or library.artifact_folder(model, name)
    options = Options(
        *(context, force, verify, thorough, keep_failed, hidden_states, adapter, adapters or ()),
        *(via, calibrate, layout, kv, budget, target, None if path == Path(source) else source, block),
    )
    export_checkpoint(path, folder, recipe, options)
    say(f"exported {source} as {name} ({size_text(stored_bytes(folder))}): {folder}")
    say(quality_line(stored_certificate(folder)))
    if budget:
        say(_chosen(folder))


def _chosen(folder: Path) -> str:
    """What a search of bits chose, and what it tried."""
    import msgspec

    from sardonyx.runtime.cli.bits import bits_rows, searched_rows
    from sardonyx.runtime.cli.terminal import table_text
    from sardonyx.runtime.manifest import read_manifest

    manifest = read_manifest(folder)
    kinds = bits_rows(manifest.weights, manifest.sensitivity)
    return f"{table_text(kinds)}\n\n{table_text(searched_rows(msgspec.to_builtins(manifest.searched)))}"


def prepare(source: Path, out: Path, label: str, name: str) -> None:
    """Export what a name of the library stands for. Raises as `export_checkpoint`."""
    from sardonyx.runtime.cli.extras import extra

    with extra("export"):
        from sardonyx.export.api import Options
    recipe, kv = recipe_and_kv(label)
    export_checkpoint(source, out, recipe, Options(kv=kv, name=name))


def export_checkpoint(source: Path, out: Path, recipe: str, options: "Options") -> None:
    """Export with progress bars. Raises SardonyxError, MissingExtra without the packages it needs."""
    from sardonyx.runtime.cli.extras import extra
    from sardonyx.runtime.cli.terminal import progress_bars

    with extra("export"):
        from sardonyx.export.api import export
    with progress_bars() as progress:
        export(source, out, recipe=recipe, options=options, progress=progress)
