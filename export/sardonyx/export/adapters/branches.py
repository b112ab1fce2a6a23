"""Adapters beside the weights: a low-rank branch at each layer that one of them changes.

All adapters' matrices are stacked, with zeros for none as the first, and each row of a batch takes those of
its number. So requests with different adapters share a pass, and the model itself may be quantized. Knows
layers and nodes; which request wants what is the runtime's to say.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from sardonyx.export.adapters import Adapter, LowRank
from sardonyx.export.checkpoint import Float32
from sardonyx.export.onnx_builder import OnnxBuilder
from sardonyx.models.config import ConfigError
from sardonyx.models.graph import Linear


class Branches:
    """Adds the branches of some adapters to a graph, and knows which it added."""

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        """Raises ConfigError for an adapter that can only be merged."""
        self._adapters = adapters
        self._added: set[str] = set()
        for adapter in adapters:
            if whole := sorted({*adapter.replaced, *adapter.magnitudes}):
                raise ConfigError(
                    f"adapter {adapter.name} is more than a low-rank sum at {whole[0]}, so it cannot be "
                    "switched; merge it with --adapter"
                )

    def added(
        self, g: OnnxBuilder, x: ir.Value, y: ir.Value, layers: Sequence[Linear], name: str
    ) -> ir.Value:
        """`y`, the layers' results side by side, `[rows, tokens, outputs]`, and what adapters add to it.

        `name` is the stem of what is stored.
        """
        ranks = [
            max((p.rank for a in self._adapters if (p := _part(a, layer))), default=0) for layer in layers
        ]
        if not any(ranks):
            return y
        self._added |= {layer.weight.name for layer in layers}
        count, rank = len(self._adapters) + 1, sum(ranks)
        inputs, outputs = layers[0].inputs, sum(layer.outputs for layer in layers)
        numbers = g.input("adapters", ir.DataType.INT64, ["rows"])
        stacks = (
            g.stored(
                f"{name}.lora_a",
                g.float,
                (count, inputs, rank),
                lambda: self._inward(layers, ranks),
            ),
            g.stored(
                f"{name}.lora_b",
                g.float,
                (count, rank, outputs),
                lambda: self._outward(layers, ranks),
            ),
        )
        inward, outward = (g.op("Gather", stack, numbers, axis=0) for stack in stacks)
        return g.op("Add", y, g.op("MatMul", g.op("MatMul", x, inward), outward))

    def check_all_added(self) -> None:
        """Raises ConfigError naming what an adapter changes that has got no branch."""
        for adapter in self._adapters:
            if left := sorted(adapter.touched - self._added):
                raise ConfigError(
                    f"adapter {adapter.name} changes {left[0]}, which cannot be switched; "
                    "merge it with --adapter"
                )

    def _inward(self, layers: Sequence[Linear], ranks: Sequence[int]) -> Iterator[Float32]:
        """A of all layers side by side, `[inputs, rank]` for each adapter, those of none first."""
        for adapter in (None, *self._adapters):
            stack = np.zeros((layers[0].inputs, sum(ranks)), np.float32)
            for part, start, _ in _parts(adapter, layers, ranks):
                stack[:, start : start + part.rank] = part.a.rows(0, part.rank).T
            yield stack

    def _outward(self, layers: Sequence[Linear], ranks: Sequence[int]) -> Iterator[Float32]:
        """B of all layers, each in its own corner, `[rank, outputs]` for each adapter, scaled."""
        for adapter in (None, *self._adapters):
            stack = np.zeros((sum(ranks), sum(layer.outputs for layer in layers)), np.float32)
            for part, start, column in _parts(adapter, layers, ranks):
                outputs = part.shape[0]
                stack[start : start + part.rank, column : column + outputs] = part.scaled(0, outputs).T
            yield stack


def _part(adapter: Adapter | None, layer: Linear) -> LowRank | None:
    return adapter.low_rank.get(layer.weight.name) if adapter else None


def _parts(
    adapter: Adapter | None, layers: Sequence[Linear], ranks: Sequence[int]
) -> Iterator[tuple[LowRank, int, int]]:
    """What an adapter adds to each layer, with its first rank and its first column."""
    start, column = 0, 0
    for layer, rank in zip(layers, ranks, strict=True):
        if part := _part(adapter, layer):
            yield part, start, column
        start, column = start + rank, column + layer.outputs
