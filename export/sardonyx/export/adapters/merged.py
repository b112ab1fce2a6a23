"""A checkpoint with an adapter merged into it: what is read is what fine-tuning made of the model.

Sums are float32, whatever the model is stored as: none of the adapter is rounded away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sardonyx.export.adapters import HEAD, TABLE, Adapter, LowRank
from sardonyx.export.checkpoint import Checkpoint, Float32, LazyTensor
from sardonyx.models import describe
from sardonyx.runtime.errors import SourceError
from sardonyx.runtime.huggingface.tokenizer_files import TokenizerFiles


@dataclass(frozen=True)
class Merged:
    """A matrix with what an adapter adds to it; with `magnitude`, its rows brought to these lengths."""

    base: LazyTensor
    low_rank: LowRank | None
    magnitude: LazyTensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def dtype(self) -> str:
        return "float32"

    def rows(self, start: int, stop: int) -> Float32:
        rows = self.base.rows(start, stop)
        if self.low_rank is not None:
            rows = rows + self.low_rank.rows(start, stop)
        if self.magnitude is not None:
            lengths = np.linalg.norm(rows, axis=1)
            rows = rows * (self.magnitude.rows(start, stop) / lengths)[:, None]
        return rows

    def raw(self, start: int, stop: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self.rows(start, stop)).view(np.uint8).reshape(stop - start, -1)


@dataclass(frozen=True)
class MergedCheckpoint:
    """A Checkpoint and an Adapter as one Checkpoint.

    Where the head is the embedding table read the other way, and only one of them is adapted, or each in its
    own way, they are two tables from here on.
    """

    base: Checkpoint
    adapter: Adapter

    def __post_init__(self) -> None:
        if self._parted and describe(self.config).tied:
            raise SourceError(
                f"{self.adapter.path}: adapts the head or the embedding, which are one in every "
                f"{self.config['model_type']} model"
            )

    @property
    def path(self) -> Path:
        return self.base.path

    @property
    def name(self) -> str:
        return f"{self.base.name}+{self.adapter.name}"

    @property
    def format(self) -> str:
        return self.base.format

    @property
    def generation(self) -> Mapping[str, Any]:
        return self.base.generation

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.base.files, *self.adapter.files)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        if not self._parted:
            return self.base.config
        fields = {"tie_word_embeddings", *(self.base.config.keys() & {"tie_embedding"})}
        return {**self.base.config, **dict.fromkeys(fields, False)}

    @cached_property
    def _parted(self) -> bool:
        """Whether a tied head and its table become two."""
        return bool({TABLE, HEAD} & self.adapter.touched) and describe(self.base.config).tied

    def names(self) -> frozenset[str]:
        return self.base.names() | ({HEAD} if self._parted else set())

    def tensor(self, name: str) -> LazyTensor:
        stored = TABLE if self._parted and name == HEAD else name
        base = self.adapter.replaced.get(name) or self.base.tensor(stored)
        if name not in self.adapter.low_rank:
            return base
        return Merged(base, self.adapter.low_rank[name], self.adapter.magnitudes.get(name))

    def tokenizer(self) -> TokenizerFiles:
        return self.base.tokenizer()
