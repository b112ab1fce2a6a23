"""build(): a checkpoint and a recipe in, the files of an artifact out, not measured yet."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import onnx_ir as ir

from sardonyx.export.adapters import Adapter
from sardonyx.export.artifact import sources_hash
from sardonyx.export.calibration import TEXT, WIDTH, Calibration, windows_of_text
from sardonyx.export.checkpoint import Checkpoint, Float32
from sardonyx.export.convolution import SPARE
from sardonyx.export.cost_graph import cost
from sardonyx.export.onnx_builder import Scales
from sardonyx.export.onnx_graph import OnnxGraph, Plan
from sardonyx.export.parallel import single_threaded_blas
from sardonyx.export.quantizers import Choosing
from sardonyx.export.recipes import Recipe
from sardonyx.export.targets import CPU, Target
from sardonyx.export.weight_file import WeightFile
from sardonyx.export.weights import OnRead, check_weights, unseen
from sardonyx.models import ConfigError, Decoder, UnknownModelType, describe
from sardonyx.runtime.errors import RequestError, SourceError, UnknownArchitecture
from sardonyx.runtime.huggingface.tokenizer_files import TokenizerFiles
from sardonyx.runtime.integrity import file_record
from sardonyx.runtime.manifest import (
    CHAT_TEMPLATE_NAME,
    FORMAT,
    MODEL_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    DType,
    Manifest,
    Source,
    State,
    Switched,
    Tokens,
    write_manifest,
)

Progress = Callable[[int, int, str], None]
"""Told how much is done, of how much in all, of what: each stage of the work counts for itself."""


def unheard(done: int, total: int, what: str) -> None:
    """A Progress that nobody watches."""


def described(checkpoint: Checkpoint) -> Decoder:
    """The network that a checkpoint's config describes. Raises SourceError, UnknownArchitecture."""
    with _naming(checkpoint):
        return describe(checkpoint.config)


@dataclass(frozen=True)
class Extras:
    """What an artifact may be able to do beside giving logits: put out what the head reads of a position,
    switch adapters, and keep keys and values in 8 bits, in steps of `scales`; and what it is to run on.
    """

    hidden_states: bool = False
    adapters: Sequence[Adapter] = ()
    scales: Scales | None = None
    target: Target = CPU


NO_EXTRAS = Extras()


def build(
    folder: Path,
    checkpoint: Checkpoint,
    recipe: Recipe,
    context: int | None = None,
    progress: Progress = unheard,
    extras: Extras = NO_EXTRAS,
) -> Manifest:
    """Write the model to an empty folder. Raises SourceError, RequestError and OSError.

    `context` lowers the number of positions the artifact can hold (default: what the model was trained for).
    Progress counts parameters.
    """
    decoder = described(checkpoint)
    tokenizer = checkpoint.tokenizer()
    counted = cost(decoder)
    check_weights(checkpoint, counted.weights, tied=decoder.tied)
    listen = listener(progress, counted.parameters, f"writing {checkpoint.name} as {recipe.name}")
    plan = Plan(
        checkpoint,
        recipe,
        extras.target,
        _context(decoder, context),
        listen,
        extras.hidden_states,
        extras.adapters,
        scales=extras.scales,
    )
    write_tokenizer(folder, tokenizer)
    with _naming(checkpoint):
        calibration = _calibration(folder, decoder, plan, tokenizer.bos_id)
        graph = _write_graph(folder, decoder, plan, calibration)
    manifest = _manifest(folder, plan, graph, decoder, tokenizer)
    if calibration:
        manifest = msgspec.structs.replace(manifest, calibration=calibration.record)
    write_manifest(folder, manifest)
    return manifest


@contextmanager
def _naming(checkpoint: Checkpoint) -> Iterator[None]:
    """Say of which model the config is that asks for too much."""
    try:
        yield
    except UnknownModelType as error:
        raise UnknownArchitecture(f"{checkpoint.path}: {error}{_way_out(checkpoint)}") from None
    except ConfigError as error:
        raise SourceError(f"{checkpoint.path}: config: {error}") from None


def _way_out(checkpoint: Checkpoint) -> str:
    """optimum reads what transformers reads."""
    return "; try --via optimum" if checkpoint.format == "safetensors" else ""


def _context(decoder: Decoder, asked: int | None) -> int:
    if asked is not None and not 1 <= asked <= decoder.context:
        raise RequestError(
            f"context {asked} is out of range: the model was trained for 1 to {decoder.context} positions"
        )
    return asked or decoder.context


def listener(progress: Progress, total: int, what: str) -> OnRead:
    """Counts the numbers that are read."""
    if progress is unheard:
        return unseen
    done = 0

    def listen(values: Float32, name: str) -> None:
        nonlocal done
        done += values.size
        progress(done, total, what)

    return listen


def _calibration(folder: Path, decoder: Decoder, plan: Plan, bos: int | None) -> Calibration | None:
    """If the recipe wants one, and the text is long enough for a window in the tokens of this model."""
    recipe = plan.recipe
    if not (recipe.calibrated or recipe.sampled):
        return None
    windows = windows_of_text(TEXT, folder, bos, min(WIDTH, plan.context))
    if not windows:
        return None
    return Calibration(
        decoder,
        plan.checkpoint,
        windows,
        lambda weight: recipe.calibrated and recipe.quantizer(weight.name).calibrated,
        lambda weight: recipe.sampled and isinstance(recipe.quantizer(weight.name), Choosing),
    )


def _write_graph(folder: Path, decoder: Decoder, plan: Plan, calibration: Calibration | None) -> OnnxGraph:
    """Write the network stage by stage, with a calibration each after it was seen at work."""
    if calibration:
        plan = replace(plan, measured=calibration.measured, sampled=calibration.sample)
    with WeightFile(folder, WEIGHTS_NAME) as weights, single_threaded_blas():
        graph = OnnxGraph(plan, weights)
        value: Any = None
        for stage in decoder.stages():
            if calibration:
                calibration.run(stage)
            value = stage(graph, value)
        graph.branches.check_all_added()
    ir.save(graph.builder.model("sardonyx", version("sardonyx")), folder / MODEL_NAME)
    return graph


def write_tokenizer(folder: Path, tokenizer: TokenizerFiles) -> None:
    """Raises OSError."""
    (folder / TOKENIZER_NAME).write_bytes(tokenizer.tokenizer_json)
    if tokenizer.chat_template is not None:
        (folder / CHAT_TEMPLATE_NAME).write_text(tokenizer.chat_template, encoding="utf-8")


def _manifest(
    folder: Path, plan: Plan, graph: OnnxGraph, decoder: Decoder, tokenizer: TokenizerFiles
) -> Manifest:
    checkpoint = plan.checkpoint
    dtype: DType = "int8" if plan.scales else plan.target.dialect.dtype
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
            State(past, present, s.kind, list(s.shape), dtype, SPARE if s.kind == "window" else 0)
            for s, past, present in graph.builder.states
        ],
        tokens=Tokens(list(tokenizer.eos_ids), tokenizer.bos_id, dict(tokenizer.special_texts)),
        source=Source(checkpoint.name, checkpoint.format, sources_hash(checkpoint.files)),
        files={path.name: file_record(path) for path in sorted(folder.iterdir()) if path.is_file()},
        minimum_onnxruntime=plan.target.minimum_onnxruntime,
        exporter=f"sardonyx {version('sardonyx')}",
        generation=dict(checkpoint.generation),
        weights=graph.quantizer_of,
        sensitivity=dict(plan.recipe.sensitivity),
        hidden_size=decoder.hidden if plan.hidden_states else 0,
        adapters=[Switched(a.name, sources_hash(a.files)) for a in plan.adapters] or msgspec.UNSET,
    )
