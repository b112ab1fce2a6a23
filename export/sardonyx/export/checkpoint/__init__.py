"""Readers of trained models. Each turns one format into the same thing: canonical names and lazy tensors.

A reader is a module of this package with `sniff(path) -> bool` and `read(path) -> Checkpoint`; its file name
is its registration. Readers know nothing about graphs or quantization.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sardonyx.runtime.errors import SourceError
from sardonyx.runtime.huggingface.tokenizer_files import TokenizerFiles

Float32 = NDArray[np.float32]


class LazyTensor(Protocol):
    """A tensor still on disk. Only the rows asked for are read: a reader never holds a whole model."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str:
        """The stored type as the format spells it, in lower case: `float32`, `bfloat16`, `q4_1`, ..."""

    def rows(self, start: int, stop: int) -> Float32:
        """Slice `[start:stop]` of the first axis as float32, shape `(stop - start, *shape[1:])`."""

    def raw(self, start: int, stop: int) -> NDArray[np.uint8]:
        """The same slice in its stored type, as bytes `[stop - start, bytes of a row]`."""


class Checkpoint(Protocol):
    """A trained model on disk, in Hugging Face's terms whatever its format."""

    @property
    def path(self) -> Path:
        """The file or folder that was opened."""

    @property
    def name(self) -> str:
        """What to call the model: its own metadata if it has any, else the file or folder name."""

    @property
    def format(self) -> str:
        """`gguf` or `safetensors`."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The fields of Hugging Face's config.json, `model_type` among them."""

    @property
    def generation(self) -> Mapping[str, Any]:
        """The fields of generation_config.json (empty when the format has none)."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The weight files, in name order (their hash names the source)."""

    def names(self) -> frozenset[str]:
        """Canonical (Hugging Face) names of all tensors."""

    def tensor(self, name: str) -> LazyTensor:
        """The tensor of that name. Raises KeyError."""

    def tokenizer(self) -> TokenizerFiles:
        """Raises SourceError when the source has no tokenizer that can be read."""


def open_checkpoint(path: Path, name: str | None = None) -> Checkpoint:
    """Open a model file or folder with the reader that recognises it. Raises SourceError.

    `name` is what the model is known as, where that is not what its file or folder says.
    """
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    for module in pkgutil.iter_modules(__path__):
        reader = importlib.import_module(f"{__name__}.{module.name}")
        if hasattr(reader, "sniff") and _unless_unreadable(reader.sniff, path):
            checkpoint = _unless_unreadable(reader.read, path)
            named: Checkpoint = replace(checkpoint, known_as=name)
            return named
    raise SourceError(
        f"{path}: not a model that can be read; expected a .gguf file, "
        "or a folder with config.json and .safetensors files"
    )


def _unless_unreadable(reading: Callable[[Path], Any], path: Path) -> Any:
    try:
        return reading(path)
    except OSError as error:
        raise SourceError(f"{error.filename or path}: cannot be read ({error.strerror})") from None
