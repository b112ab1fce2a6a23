"""Norms as ONNX nodes: alone, in groups, or taking along the addition before them."""

from collections.abc import Callable, Sequence
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
    """Layer norm; `weights` are gamma and, if there is one, beta, as wide as all groups together.

    A beta that is not there is left off: onnxruntime 1.32 crashes while it optimizes an empty last input.
    """

    weights: Sequence[ir.Value]
    epsilon: float
    groups: int

    def of(self, g: OnnxBuilder, x: ir.Value) -> ir.Value:
        if self.groups == 1:
            return self._normed(g, x, *self.weights)
        gamma, *beta = self.weights
        assert gamma.shape is not None
        ones = g.number(np.ones(gamma.shape.numpy()[0] // self.groups))
        plain = _in_groups(g, x, self.groups, lambda x: self._normed(g, x, ones))
        weighted = g.op("Mul", plain, gamma)
        return g.op("Add", weighted, *beta) if beta else weighted

    def of_sum(self, g: OnnxBuilder, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
        normed, _, _, total = g.ops(
            "SkipLayerNormalization",
            a,
            b,
            *self.weights,
            count=4,
            domain=MICROSOFT,
            epsilon=self.epsilon,
        )
        return normed, total

    def _normed(self, g: OnnxBuilder, x: ir.Value, *weights: ir.Value) -> ir.Value:
        return g.op("LayerNormalization", x, *weights, axis=-1, epsilon=self.epsilon)


@dataclass(frozen=True, eq=False)
class OlderRMS(RMS):
    """For sets of operators before 23, which have no node for it alone."""

    def of(self, g: OnnxBuilder, x: ir.Value) -> ir.Value:
        return _in_groups(g, x, self.groups, lambda x: _plain_rms(g, x, self.gamma, self.epsilon))


@dataclass(frozen=True, eq=False)
class PlainRMS(RMS):
    """In operators that every provider knows; onnxruntime's CPU makes one of them again."""

    def of(self, g: OnnxBuilder, x: ir.Value) -> ir.Value:
        return _in_groups(g, x, self.groups, lambda x: _plain_rms(g, x, self.gamma, self.epsilon))

    def of_sum(self, g: OnnxBuilder, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
        total = g.op("Add", a, b)
        return self.of(g, total), total


@dataclass(frozen=True, eq=False)
class PlainLayer(Layer):
    """Without the addition in one node."""

    def of_sum(self, g: OnnxBuilder, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
        total = g.op("Add", a, b)
        return self.of(g, total), total


def _plain_rms(g: OnnxBuilder, x: ir.Value, gamma: ir.Value, epsilon: float) -> ir.Value:
    """In float32 up to the weights: squares of halves would be infinite."""
    half = g.float != ir.DataType.FLOAT
    wide = g.op("Cast", x, to=ir.DataType.FLOAT) if half else x
    mean = g.op("ReduceMean", g.op("Mul", wide, wide), g.constant(np.array([-1], np.int64)), keepdims=1)
    root = g.op("Sqrt", g.op("Add", mean, g.constant(np.array(epsilon, np.float32))))
    normed = g.op("Div", wide, root)
    return g.op("Mul", g.op("Cast", normed, to=g.float) if half else normed, gamma)


def _in_groups(g: OnnxBuilder, x: ir.Value, groups: int, norm: Callable[[ir.Value], ir.Value]) -> ir.Value:
    if groups == 1:
        return norm(x)
    parts = g.reshaped(x, 0, 0, groups, -1)
    return g.reshaped(norm(parts), 0, 0, -1)
