"""Refactoring leaves exported bytes unchanged: each architecture's EXAMPLE, in each recipe, is as recorded.

When other bytes are intended, or an architecture or a recipe is new, record them and say why in the commit:

    SARDONYX_RECORD=1 python -m pytest tests/export/test_exported_bytes.py

What counts is the weight file as it is, and what graph and manifest say; not which release said it, nor how
this release of protobuf spells it.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from random_models import UNMEASURED, ArrayCheckpoint
from sardonyx.export.api import export
from sardonyx.export.cost_graph import cost
from sardonyx.export.recipes import RECIPES
from sardonyx.models import architectures, describe
from sardonyx.runtime.manifest import MODEL_NAME, WEIGHTS_NAME, read_manifest

RECORD = Path(__file__).with_name("exported_bytes.json")
RECORDING = bool(os.environ.get("SARDONYX_RECORD"))
EXPORTS = [f"{name} {recipe.name}" for name in architectures() for recipe in RECIPES.values() if recipe.rules]


def made_up(config: Any) -> ArrayCheckpoint:
    """Weights that are the same on any machine, in any release of numpy: its legacy generator is frozen."""
    arrays = {
        name: np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, weight.shape).astype(np.float32)
        for name, weight in cost(describe(config)).weights.items()
    }
    return ArrayCheckpoint(config, arrays)


def digest(folder: Path) -> str:
    """Of an artifact."""
    model = onnx.load(folder / MODEL_NAME, load_external_data=False)
    manifest = msgspec.to_builtins(read_manifest(folder))
    del manifest["exporter"], manifest["files"]
    weights = hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest()
    said = json.dumps([weights, manifest, list(statements(model))], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def statements(model: onnx.ModelProto) -> Iterator[Any]:
    """All that a model says, in plain lists."""
    yield model.ir_version, sorted((opset.domain, opset.version) for opset in model.opset_import)
    for values in (model.graph.input, model.graph.output):
        yield [(v.name, v.type.tensor_type.elem_type, shape(v.type.tensor_type.shape)) for v in values]
    for node in model.graph.node:
        attributes = {a.name: plain(onnx.helper.get_attribute_value(a)) for a in node.attribute}
        yield node.domain, node.op_type, list(node.input), list(node.output), attributes
    for tensor in model.graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        content = None if place else onnx.numpy_helper.to_array(tensor).tolist()
        yield tensor.name, tensor.data_type, list(tensor.dims), place, content


def shape(shape: onnx.TensorShapeProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in shape.dim]


def plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize("name", EXPORTS)
def test_exported_bytes_are_as_recorded(name: str, tmp_path: Path) -> None:
    architecture, recipe = name.split()
    checkpoint = made_up(architectures()[architecture].EXAMPLE)
    export(checkpoint, tmp_path / "out", recipe=recipe, options=UNMEASURED)
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    found = digest(tmp_path / "out")
    if RECORDING:
        recorded = {key: recorded[key] for key in recorded if key in EXPORTS} | {name: found}
        RECORD.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n")
    assert recorded.get(name) == found, "if that is intended, record it as this file's first lines say"


def test_what_is_recorded_still_exists() -> None:
    assert set(json.loads(RECORD.read_text())) <= set(EXPORTS)
