"""export(): a trained model in, an artifact out that was measured before it got its name."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sardonyx.export.adapters import Adapter
from sardonyx.export.adapters.merged import MergedCheckpoint
from sardonyx.export.adapters.peft import read_adapter
from sardonyx.export.artifact import failed_place, set_aside, writing
from sardonyx.export.budget import Budget
from sardonyx.export.build import Extras, Progress, build, unheard
from sardonyx.export.certificate import checks, demand, structure_checks
from sardonyx.export.checkpoint import Checkpoint, open_checkpoint
from sardonyx.export.int8_cache import limits_with, scales
from sardonyx.export.layouts import check_layout, lay_out
from sardonyx.export.recipes import RECIPES, Recipe
from sardonyx.export.reference import REFERENCE, reference_of, require_space
from sardonyx.export.structure import structure
from sardonyx.export.targets import CPU, target_named
from sardonyx.export.traced.home import bring_home
from sardonyx.export.traced.optimum import trace
from sardonyx.export.verify import Scope, certify, store
from sardonyx.export.within_budget import within_budget
from sardonyx.runtime.errors import RequestError, VerificationFailed
from sardonyx.runtime.manifest import Manifest

CACHES = ("float32", "int8")
"""Types of cached keys and values."""


@dataclass(frozen=True)
class Options:
    """How to export.

    `context` lowers the number of positions the artifact can hold (default: what the model was trained for),
    `force` replaces an artifact that is in the way. `verify` measures the artifact against float32, over more
    texts if `thorough`; one that misses its recipe's limits is not put in place, but kept as `OUT.failed`
    with `keep_failed`. `hidden_states` makes the graph put out what its head reads, which contrastive search
    needs. `adapter` is the folder of a LoRA adapter to merge into the model, `adapters` are some to keep
    beside it, which requests then choose by their folders' names. `via` names the program that makes the
    graph, for architectures of which there is no description: only "optimum". Without `calibrate` weights are
    rounded each for itself, whatever they multiply: quicker, and worse. `layout` names another program that
    is to find what it wants in `out`, instead of an artifact. `kv` is the type of cached keys and values:
    "int8" takes a quarter of the memory. A `budget` takes the place of the recipe: bits are chosen for each
    weight by what it was measured to need. `target` is what it is to run on, by name: that decides operators
    and the type that is computed with. `name` is what to call the model (default: what the source says).
    `block` weights share a scale where a recipe has blocks, instead of 32.
    """

    context: int | None = None
    force: bool = False
    verify: bool = True
    thorough: bool = False
    keep_failed: bool = False
    hidden_states: bool = False
    adapter: Path | None = None
    adapters: Sequence[Path] = ()
    via: str | None = None
    calibrate: bool = True
    layout: str | None = None
    kv: str = "float32"
    budget: Budget | None = None
    target: str = CPU.name
    name: str | None = None
    block: int | None = None


DEFAULTS = Options()

VIA = "optimum"
"""The one other program that makes graphs for export."""


def export(
    source: Path | Checkpoint,
    out: Path,
    *,
    recipe: str = "int4",
    options: Options = DEFAULTS,
    progress: Progress = unheard,
) -> Manifest:
    """Write the model at `source` (a GGUF file, a Hugging Face folder, an open checkpoint) to `out`.

    Raises SourceError for what cannot be read, OutputError for what cannot be written, VerificationFailed for
    what is not as good as its recipe promises; in each case `out` is untouched.
    """
    if recipe not in RECIPES:
        raise RequestError(f"recipe {recipe!r} is not known; known: {', '.join(RECIPES)}")
    check_layout(options.layout)
    if options.kv not in CACHES:
        raise RequestError(f"a cache of {options.kv!r} is not known; known: {', '.join(CACHES)}")
    failed = failed_place(out, force=options.force) if options.keep_failed else None
    if options.budget is not None:
        _check_budget(options)
    _check_target(options)
    with writing(out, force=options.force) as folder:
        try:
            chosen = replace(RECIPES[recipe], calibrate=options.calibrate)
            if options.block is not None:
                chosen = chosen.in_blocks(options.block)
            if options.via is not None:
                return _brought_home(folder, source, chosen, options, progress)
            checkpoint = open_checkpoint(source, options.name) if isinstance(source, Path) else source
            if options.adapter is not None:
                checkpoint = MergedCheckpoint(checkpoint, read_adapter(options.adapter, checkpoint))
            if options.layout is not None:
                return _laid_out(folder, checkpoint, chosen, options, progress)
            return _proven(folder, checkpoint, chosen, options, progress)
        except VerificationFailed as error:
            if failed is None:
                cure = "nothing was written: choose another recipe, or keep it to look at with --keep-failed"
                raise VerificationFailed(f"{error}; {cure}", error.table) from None
            set_aside(folder, failed)
            raise VerificationFailed(f"{error}; kept as {failed}", error.table) from None


def _proven(
    folder: Path, checkpoint: Checkpoint, recipe: Recipe, options: Options, progress: Progress
) -> Manifest:
    """Build in the folder and measure what was built; without `verify` only its structure is looked at."""
    if options.budget is not None:
        scope = Scope(options.thorough)
        return within_budget(folder, checkpoint, options.budget, options.context, scope, progress)
    title = f"{checkpoint.name} as {recipe.name}"
    if options.verify or options.kv == "int8":
        require_space(folder, checkpoint, copies=2)
    target = target_named(options.target)
    extras = Extras(options.hidden_states, _adapters(options.adapters, checkpoint), target=target)
    limits = recipe.limits
    with _reference(folder, checkpoint, recipe, options, progress) as reference:
        if options.kv == "int8":
            assert reference is not None
            extras, limits = replace(extras, scales=scales(reference)), limits_with(limits)
        manifest = build(folder, checkpoint, recipe, options.context, progress, extras)
        if not options.verify:
            demand(title, list(structure_checks(structure(folder, manifest))))
            return manifest
        certificate = certify(folder, reference, limits, Scope(options.thorough), progress)
    manifest = store(folder, certificate)
    demand(title, checks(certificate))
    return manifest


def _check_budget(options: Options) -> None:
    """Raises RequestError for what a search of bits does not know."""
    if not options.verify:
        raise RequestError("a budget is met by measuring: give it without --no-verify")
    _refuse(
        "bits are not searched for {}; export by a recipe",
        (options.hidden_states, "hidden states"),
        (bool(options.adapters), "adapters to switch"),
        (options.kv != "float32", f"a cache of {options.kv}"),
        (options.via is not None, f"a graph made via {options.via}"),
        (not options.calibrate, "uncalibrated weights"),
        (options.block is not None, f"blocks of {options.block}"),
    )


def _refuse(message: str, *asked: tuple[bool, str]) -> None:
    """Raises RequestError with the first that was asked for in the message's braces."""
    for given, what in asked:
        if given:
            raise RequestError(message.format(what))


def _check_target(options: Options) -> None:
    """Raises RequestError for what a target does not know, and for one that is not known."""
    target = target_named(options.target)
    if target is CPU:
        return
    _refuse(
        f"target {target.name} cannot have {{}}; export it without --target",
        (options.hidden_states and target.ports.masked, "hidden states"),
        (bool(options.adapters) and target.ports.masked, "adapters to switch"),
        (options.kv != "float32", f"a cache of {options.kv}"),
        (options.via is not None, f"a graph made via {options.via}, which runs anywhere"),
        (options.layout is not None, f"the layout {options.layout}"),
        (options.budget is not None, "a search of bits"),
    )


def _laid_out(
    folder: Path, checkpoint: Checkpoint, recipe: Recipe, options: Options, progress: Progress
) -> Manifest:
    """Prove an artifact, and write it as another program wants it; the manifest is the artifact's."""
    assert options.layout is not None
    _refuse(
        f"layout {options.layout} has no place for {{}}; export it without",
        (options.hidden_states, "hidden states"),
        (bool(options.adapters), "adapters to switch"),
        (options.kv != "float32", f"a cache of {options.kv}"),
    )
    with TemporaryDirectory(prefix="artifact-", dir=folder) as artifact:
        manifest = _proven(Path(artifact), checkpoint, recipe, options, progress)
        written = folder / "written"
        written.mkdir()
        lay_out(Path(artifact), written, options.layout, checkpoint.config)
    for path in written.iterdir():
        path.rename(folder / path.name)
    written.rmdir()
    return manifest


def _brought_home(
    folder: Path, source: Path | Checkpoint, recipe: Recipe, options: Options, progress: Progress
) -> Manifest:
    """As `_proven`, of a graph that another program traces; the reference is that graph as it was traced."""
    if options.via != VIA or not isinstance(source, Path):
        raise RequestError(f"via {options.via!r} is not known; known: {VIA}, of a Hugging Face folder")
    _refuse(
        f"a graph made via {VIA} {{}}; export it without",
        (options.hidden_states, "puts out no hidden states"),
        (options.adapter is not None or bool(options.adapters), "takes no adapter"),
        (options.kv != "float32", "keeps its cache in float32"),
        (options.layout is not None, "has the layout that it has"),
    )
    name = options.name or source.resolve().name
    title = f"{name} as {recipe.name}"
    with TemporaryDirectory(prefix="traced-", dir=folder) as traced:
        progress(0, 1, f"tracing {name} with {VIA}")
        neighbour = trace(source, Path(traced))
        manifest = bring_home(folder, neighbour, recipe, name, options.context, progress)
        if not options.verify:
            demand(title, list(structure_checks(structure(folder, manifest))))
            return manifest
        if recipe.name == REFERENCE:
            certificate = certify(folder, None, recipe.limits, Scope(options.thorough), progress)
        else:
            with TemporaryDirectory(prefix="reference-", dir=folder) as reference:
                bring_home(Path(reference), neighbour, RECIPES[REFERENCE], name, options.context, progress)
                scope = Scope(options.thorough)
                certificate = certify(folder, Path(reference), recipe.limits, scope, progress)
    manifest = store(folder, certificate)
    demand(title, checks(certificate))
    return manifest


def _adapters(paths: Sequence[Path], checkpoint: Checkpoint) -> Sequence[Adapter]:
    """Raises RequestError if two would have one name."""
    adapters = [read_adapter(path, checkpoint) for path in paths]
    names = Counter(adapter.name for adapter in adapters)
    if names and names.most_common(1)[0][1] > 1:
        raise RequestError(f"two adapters are called {names.most_common(1)[0][0]!r}: rename a folder")
    return adapters


def _reference(
    folder: Path, checkpoint: Checkpoint, recipe: Recipe, options: Options, progress: Progress
) -> AbstractContextManager[Path | None]:
    """The artifact to measure against, and to see in how large keys and values get; none where neither is
    asked for, nor for float32, which is its own reference where it is computed on the CPU's terms.
    """
    own = recipe.name == REFERENCE and options.target == CPU.name
    if options.kv == "float32" and (own or not options.verify):
        return nullcontext()
    return reference_of(checkpoint, folder, options.context, progress)
