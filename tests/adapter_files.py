"""Adapters as PEFT writes them, made of arrays: the tests' supply, without torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from random_models import ArrayCheckpoint

Arrays = dict[str, NDArray[np.float32]]
PREFIX = "base_model.model."


def low_rank(checkpoint: ArrayCheckpoint, modules: Sequence[str], rank: int = 3, seed: int = 0) -> Arrays:
    """A and B for modules whose matrices are stored under canonical names."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    for module in modules:
        outputs, inputs = checkpoint.arrays[f"{module}.weight"].shape
        a, b = rng.standard_normal((rank, inputs)) / 4, rng.standard_normal((outputs, rank)) / 4
        arrays[f"{PREFIX}{module}.lora_A.weight"] = a.astype(np.float32)
        arrays[f"{PREFIX}{module}.lora_B.weight"] = b.astype(np.float32)
    return arrays


def save_adapter(folder: Path, arrays: Mapping[str, NDArray[np.float32]], **config: Any) -> Path:
    """Write an adapter of rank 3, unless the config says else."""
    folder.mkdir(parents=True)
    said = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "lora_dropout": 0.1, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    save_file(dict(arrays), folder / "adapter_model.safetensors")
    return folder


def merged(checkpoint: ArrayCheckpoint, arrays: Mapping[str, NDArray[np.float32]], scale: float = 2) -> Any:
    """The model that adapting these modules makes of it."""
    whole = dict(checkpoint.arrays)
    for name, a in arrays.items():
        if name.endswith("lora_A.weight"):
            b = arrays[name.replace("lora_A", "lora_B")]
            target = name.removeprefix(PREFIX).replace("lora_A.", "")
            whole[target] = whole[target] + np.float32(scale) * (b @ a)
    return ArrayCheckpoint(checkpoint.config, whole)
