"""From a neighbour's float32 graph to the files of an artifact, not measured yet."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import msgspec
import onnx_ir as ir

from sardonyx.export.artifact import sources_hash
from sardonyx.export.build import Progress, listener, unheard, write_tokenizer
from sardonyx.export.calibration import TEXT, WIDTH, record_of, windows_of_text
from sardonyx.export.parallel import single_threaded_blas
from sardonyx.export.recipes import Recipe
from sardonyx.export.targets import CPU
from sardonyx.export.traced.calibrate import moments
from sardonyx.export.traced.products import products
from sardonyx.export.traced.rewrite import rewrite
from sardonyx.export.weight_file import WeightFile
from sardonyx.export.weights import Moment
from sardonyx.models.graph import Weight
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.integrity import file_record
from sardonyx.runtime.manifest import (
    CHAT_TEMPLATE_NAME,
    MODEL_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    Calibrated,
    Manifest,
    Source,
    write_manifest,
)
from sardonyx.runtime.neighbours.folder import Neighbour

FILES = (MODEL_NAME, WEIGHTS_NAME, TOKENIZER_NAME, CHAT_TEMPLATE_NAME)


def bring_home(
    folder: Path,
    neighbour: Neighbour,
    recipe: Recipe,
    name: str,
    context: int | None = None,
    progress: Progress = unheard,
) -> Manifest:
    """Write an artifact of a neighbour's model. Raises RequestError for a recipe or context that is not for
    it, and OSError. Progress counts parameters.
    """
    described = neighbour.manifest
    if recipe.fit is not None:
        raise RequestError(
            f"recipe {recipe.name} takes what a checkpoint holds, so it is not for a traced graph"
        )
    if context is not None and not 1 <= context <= described.context_length:
        raise RequestError(
            f"context {context} is out of range: the model was trained for 1 to {described.context_length} "
            "positions"
        )
    write_tokenizer(folder, neighbour.tokenizer)
    model = ir.load(neighbour.laid.graph)
    parameters = _parameters(model.graph)
    known, record = _calibrated(folder, neighbour, recipe, model.graph)
    with WeightFile(folder, WEIGHTS_NAME) as weights, single_threaded_blas():
        listen = listener(progress, parameters, f"writing {name} as {recipe.name}")
        quantizer_of = rewrite(model, weights, recipe, listen, known.get)
    ir.save(model, folder / MODEL_NAME)
    files = neighbour.files
    manifest = msgspec.structs.replace(
        described,
        name=name,
        parameters=parameters,
        context_length=context or described.context_length,
        recipe=recipe.name,
        source=Source(name, neighbour.laid.program, sources_hash(tuple(files))),
        files={file: file_record(folder / file) for file in FILES if (folder / file).is_file()},
        minimum_onnxruntime=CPU.minimum_onnxruntime,
        exporter=f"sardonyx {version('sardonyx')}, {described.exporter}",
        weights=quantizer_of,
        calibration=record,
    )
    write_manifest(folder, manifest)
    return manifest


def _calibrated(
    folder: Path, neighbour: Neighbour, recipe: Recipe, graph: ir.Graph
) -> tuple[Mapping[Weight, Moment], Calibrated | None]:
    """What weights multiply, of those for which the recipe asks, and what was read to see it."""
    found = [p for p in products(graph) if not p.is_table and recipe.quantizer(p.weight.name).calibrated]
    if not recipe.calibrated or not found:
        return {}, None
    described = neighbour.manifest
    windows = windows_of_text(TEXT, folder, described.tokens.bos, min(WIDTH, described.context_length))
    if not windows:
        return {}, None
    return moments(neighbour.laid.graph, found, described.states, windows), record_of(windows)


def _parameters(graph: ir.Graph) -> int:
    """Numbers in the float32 tensors that are more than constants of the arithmetic."""
    tensors = (value.const_value for value in graph.initializers.values())
    return sum(t.size for t in tensors if t is not None and t.dtype == ir.DataType.FLOAT and len(t.shape) > 0)
