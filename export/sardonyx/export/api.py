"""export(): a trained model in, an artifact out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir

from sardonyx.export.artifact import sources_hash, writing
from sardonyx.export.checkpoint import Checkpoint, Float32, TokenizerFiles, open_checkpoint
from sardonyx.export.cost_graph import cost
from sardonyx.export.onnx_graph import OnnxGraph, Plan
from sardonyx.export.recipes import RECIPES
from sardonyx.export.targets import CPU
from sardonyx.export.weight_file import WeightFile
from sardonyx.export.weights import OnRead, check_weights, unseen
from sardonyx.models import ConfigError, Decoder, UnknownModelType, describe
from sardonyx.runtime.errors import RequestError, SourceError, UnknownArchitecture
from sardonyx.runtime.integrity import file_record
from sardonyx.runtime.manifest import (
    CHAT_TEMPLATE_NAME,
    FORMAT,
    MODEL_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    Manifest,
    Source,
    State,
    Tokens,
    write_manifest,
)

Progress = Callable[[int, int, str], None]
"""Called with parameters done, parameters in all, and the name of the tensor at work."""


def export(
    source: Path | Checkpoint,
    out: Path,
    *,
    recipe: str = "int4",
    context: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Write the model at `source` (a GGUF file, a Hugging Face folder, an open checkpoint) to `out`.

    `context` lowers the number of positions the artifact can hold (default: what the model was trained for).
    Raises SourceError for what cannot be read, OutputError for what cannot be written; in either case `out`
    is untouched.
    """
    if recipe not in RECIPES:
        raise RequestError(f"recipe {recipe!r} is not known; known: {', '.join(RECIPES)}")
    with writing(out, force=force) as folder:
        checkpoint = open_checkpoint(source) if isinstance(source, Path) else source
        with _naming(checkpoint):
            decoder = describe(checkpoint.config)
        tokenizer = checkpoint.tokenizer()
        counted = cost(decoder)
        check_weights(checkpoint, counted.weights, tied=decoder.tied)
        listen = _listener(progress, counted.parameters)
        plan = Plan(checkpoint, RECIPES[recipe], CPU, _context(decoder, context), listen)
        with _naming(checkpoint):
            graph = _write_graph(folder, decoder, plan)
        _write_tokenizer(folder, tokenizer)
        manifest = _manifest(folder, plan, graph, decoder, tokenizer)
        write_manifest(folder, manifest)
    return manifest


@contextmanager
def _naming(checkpoint: Checkpoint) -> Iterator[None]:
    """Say of which model the config is that asks for too much."""
    try:
        yield
    except UnknownModelType as error:
        raise UnknownArchitecture(f"{checkpoint.path}: {error}") from None
    except ConfigError as error:
        raise SourceError(f"{checkpoint.path}: config: {error}") from None


def _context(decoder: Decoder, asked: int | None) -> int:
    if asked is not None and not 1 <= asked <= decoder.context:
        raise RequestError(
            f"context {asked} is out of range: the model was trained for 1 to {decoder.context} positions"
        )
    return asked or decoder.context


def _listener(progress: Progress | None, total: int) -> OnRead:
    if progress is None:
        return unseen
    done = 0

    def listen(values: Float32, name: str) -> None:
        nonlocal done
        done += values.size
        progress(done, total, name)

    return listen


def _write_graph(folder: Path, decoder: Decoder, plan: Plan) -> OnnxGraph:
    with WeightFile(folder, WEIGHTS_NAME) as weights:
        graph = OnnxGraph(plan, weights)
        decoder.emit(graph)
    ir.save(graph.builder.model("sardonyx", version("sardonyx")), folder / MODEL_NAME)
    return graph


def _write_tokenizer(folder: Path, tokenizer: TokenizerFiles) -> None:
    (folder / TOKENIZER_NAME).write_bytes(tokenizer.tokenizer_json)
    if tokenizer.chat_template is not None:
        (folder / CHAT_TEMPLATE_NAME).write_text(tokenizer.chat_template, encoding="utf-8")


def _manifest(
    folder: Path, plan: Plan, graph: OnnxGraph, decoder: Decoder, tokenizer: TokenizerFiles
) -> Manifest:
    checkpoint = plan.checkpoint
    return Manifest(
        format=FORMAT,
        name=checkpoint.name,
        architecture=checkpoint.config["model_type"],
        parameters=cost(decoder).parameters,
        vocab_size=decoder.vocab,
        context_length=plan.context,
        recipe=plan.recipe.name,
        target=plan.target.name,
        states=[
            State(past, present, s.kind, list(s.shape), "float32")
            for s, past, present in graph.builder.states
        ],
        tokens=Tokens(list(tokenizer.eos_ids), tokenizer.bos_id, dict(tokenizer.special_texts)),
        source=Source(checkpoint.name, checkpoint.format, sources_hash(checkpoint.files)),
        files={path.name: file_record(path) for path in sorted(folder.iterdir())},
        minimum_onnxruntime=plan.target.minimum_onnxruntime,
        exporter=f"sardonyx {version('sardonyx')}",
        generation=dict(checkpoint.generation),
        weights=graph.quantizer_of,
    )
