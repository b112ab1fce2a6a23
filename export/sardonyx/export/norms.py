"""Norms as ONNX nodes: alone, in groups, or taking along the addition before them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from sardonyx.export.onnx_builder import MICROSOFT, OnnxBuilder


class Norm(Protocol):
    """A norm with its weights, over the last axis or `groups` parts of it."""

    @property
    def groups(self) -> int: ...

    def of(self, g: OnnxBuilder, x: ir.Value) -> ir.Value:
        """The normed value."""

    def of_sum(self, g: OnnxBuilder, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The normed `a + b` and `a + b` itself, by one node. Not in groups."""


@dataclass(frozen=True, eq=False)
class RMS:
    """Root mean square norm; groups share `gamma`."""

    gamma: ir.Value
    epsilon: float
    groups: int

    def of(self, g: OnnxBuilder, x: ir.Value) -> ir.Value:
        return _in_groups(
            g,
            x,
            self.groups,
            lambda x: g.op("RMSNormalization", x, self.gamma, axis=-1, epsilon=self.epsilon),
        )

    def of_sum(self, g: OnnxBuilder, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
        normed, _, _, total = g.ops(
            "SkipSimplifiedLayerNormalization",
            a,
            b,
            self.gamma,
            count=4,
            domain=MICROSOFT,
            epsilon=self.epsilon,
        )
        return normed, total


@dataclass(frozen=True, eq=False)
class Layer:
    """Layer norm; `gamma` and `beta` are `[size]`, or `[groups, size]`."""

    gamma: ir.Value
    beta: ir.Value | None
    epsilon: float
    groups: int

    def of(self, g: OnnxBuilder, x: ir.Value) -> ir.Value:
        if self.groups == 1:
            return self._normed(g, x, self.gamma, self.beta)
        return _in_groups(g, x, self.groups, lambda x: self._weighted(g, x))

    def of_sum(self, g: OnnxBuilder, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
        normed, _, _, total = g.ops(
            "SkipLayerNormalization",
            a,
            b,
            self.gamma,
            self.beta,
            count=4,
            domain=MICROSOFT,
            epsilon=self.epsilon,
        )
        return normed, total

    def _normed(self, g: OnnxBuilder, x: ir.Value, gamma: ir.Value, beta: ir.Value | None) -> ir.Value:
        return g.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=self.epsilon)

    def _weighted(self, g: OnnxBuilder, x: ir.Value) -> ir.Value:
        """`[..., groups, size]`. The kernel takes one weight for all groups: here it takes none."""
        assert self.gamma.shape is not None
        ones = g.constant(np.ones(self.gamma.shape.numpy()[-1], np.float32))
        weighted = g.op("Mul", self._normed(g, x, ones, None), self.gamma)
        return weighted if self.beta is None else g.op("Add", weighted, self.beta)


def _in_groups(g: OnnxBuilder, x: ir.Value, groups: int, norm: Callable[[ir.Value], ir.Value]) -> ir.Value:
    if groups == 1:
        return norm(x)
    parts = g.op("Reshape", x, g.constant(np.array([0, 0, groups, -1], np.int64)))
    return g.op("Reshape", norm(parts), g.constant(np.array([0, 0, -1], np.int64)))
