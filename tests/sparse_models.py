"""Checkpoints of any size that take no room: safetensors files of zeros that were never written."""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from random_models import letters_tokenizer
from sardonyx.export.cost_graph import cost
from sardonyx.models import describe


def sparse_folder(config: Mapping[str, Any], folder: Path) -> int:
    """Make the folder of a Hugging Face model in float16; returns the bytes that its weights claim."""
    header, end = {}, 0
    for name, weight in cost(describe(config)).weights.items():
        start, end = end, end + 2 * prod(weight.shape)
        header[name] = {"dtype": "F16", "shape": weight.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    (folder / "config.json").write_text(json.dumps(dict(config)))
    (folder / "tokenizer.json").write_bytes(letters_tokenizer(99))
    return end
