"""Checkpoints of random weights for any config, in memory: the tests' supply of models."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from sardonyx.export.api import Options, export
from sardonyx.export.checkpoint import Float32
from sardonyx.export.cost_graph import cost
from sardonyx.models import describe
from sardonyx.models.graph import Weight
from sardonyx.runtime.huggingface.tokenizer_files import TokenizerFiles
from sardonyx.runtime.manifest import Manifest

UNMEASURED = Options(verify=False, calibrate=False)
"""For tests of other things than quality."""


@dataclass(frozen=True)
class ArrayTensor:
    """A LazyTensor that is not lazy."""

    array: Float32
    dtype: str = "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def rows(self, start: int, stop: int) -> Float32:
        return self.array[start:stop]


@dataclass(frozen=True)
class ArrayCheckpoint:
    """A Checkpoint made of arrays."""

    config: Mapping[str, Any]
    arrays: Mapping[str, Float32]
    name: str = "random"
    format: str = "arrays"
    generation: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    path: Path = Path("random")

    def names(self) -> frozenset[str]:
        return frozenset(self.arrays)

    def tensor(self, name: str) -> ArrayTensor:
        return ArrayTensor(self.arrays[name])

    def tokenizer(self) -> TokenizerFiles:
        return TokenizerFiles(
            letters_tokenizer(self.config["vocab_size"]), None, None, (0,), {"eos_token": "<end>"}
        )

    def fetch(self, weight: Weight) -> Float32:
        return self.arrays[weight.name]


def random_weight(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Float32:
    """A weight of the size that keeps activations near one; norms are near one, biases near zero."""
    if len(shape) == 1:
        centre = 0.0 if name.endswith("bias") else 1.0
        return (centre + 0.1 * rng.standard_normal(shape)).astype(np.float32)
    return (rng.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)


def random_checkpoint(config: Mapping[str, Any], seed: int = 0) -> ArrayCheckpoint:
    """Weights of the size that keeps activations near one, norms near one."""
    rng = np.random.default_rng(seed)
    weights = cost(describe(config)).weights.values()
    return ArrayCheckpoint(config, {w.name: random_weight(w.name, w.shape, rng) for w in weights})


def save_folder(checkpoint: ArrayCheckpoint, folder: Path) -> Path:
    """Write a checkpoint as the folder of a Hugging Face model."""
    folder.mkdir(parents=True)
    save_file(dict(checkpoint.arrays), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(dict(checkpoint.config)))
    (folder / "tokenizer.json").write_bytes(letters_tokenizer(checkpoint.config["vocab_size"]))
    return folder


def letters_tokenizer(vocab_size: int) -> bytes:
    """A tokenizer.json of single letters: token 0 is `<end>`, the others printable characters in order."""
    vocab = {"<end>": 0} | {chr(32 + i): i for i in range(1, vocab_size)}
    added = {"id": 0, "content": "<end>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [added | flags],
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "."},
                "behavior": "Isolated",
                "invert": False,
            },
            "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<end>"},
        }
    ).encode()


def export_random(
    config: Mapping[str, Any], folder: Path, recipe: str = "fp32"
) -> tuple[ArrayCheckpoint, Manifest]:
    """Export random weights for a config."""
    checkpoint = random_checkpoint(config)
    return checkpoint, export(checkpoint, folder, recipe=recipe, options=UNMEASURED)
