"""Low-rank adapters (LoRA, arXiv 2106.09685) of a model: read, merged into its weights, or kept beside them.

An adapter adds `scale * B A` to some of a model's matrices. Here is what it consists of, in the terms of
canonical tensors; `peft.py` reads it, `merged.py` makes it part of a checkpoint, `branches.py` of a graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sardonyx.export.checkpoint import Float32, LazyTensor

TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class LowRank:
    """`scale * B A`, to be added to a matrix `[outputs, inputs]`."""

    a: LazyTensor  # [rank, inputs]
    b: LazyTensor  # [outputs, rank]
    scale: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        return self.b.shape[0], self.a.shape[1]

    def rows(self, start: int, stop: int) -> Float32:
        """Rows of the product, `[stop - start, inputs]`."""
        product: Float32 = self.scaled(start, stop) @ self.a.rows(0, self.rank)
        return product

    def scaled(self, start: int, stop: int) -> Float32:
        """Rows of `scale * B`."""
        rows: Float32 = self.b.rows(start, stop) * np.float32(self.scale)
        return rows


@dataclass(frozen=True)
class Adapter:
    """What an adapter does to a model, by canonical names of its tensors."""

    name: str
    path: Path
    files: tuple[Path, ...]
    low_rank: Mapping[str, LowRank]
    replaced: Mapping[str, LazyTensor] = field(default_factory=dict)
    """Tensors that were trained in full."""
    magnitudes: Mapping[str, LazyTensor] = field(default_factory=dict)
    """Lengths that the rows of a sum are brought to, `[outputs]` (DoRA, arXiv 2402.09353)."""

    @property
    def touched(self) -> frozenset[str]:
        """The tensors that it changes."""
        return frozenset({*self.low_rank, *self.replaced, *self.magnitudes})
