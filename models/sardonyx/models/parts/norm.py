"""Normalisation layers."""

from dataclasses import dataclass

from sardonyx.models.graph import Graph, Value, Weight


@dataclass(frozen=True)
class RMSNorm:
    """Root mean square norm (arXiv 1910.07467) over each of `groups` parts of `size` features."""

    size: int
    epsilon: float
    groups: int = 1

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value:
        return g.rms_norm(x, Weight(f"{at}.weight", (self.size,)), self.epsilon, self.groups)


@dataclass(frozen=True)
class LayerNorm:
    """Layer norm (arXiv 1607.06450) over each of `groups` parts of `size` features, each with weights of its
    own.
    """

    size: int
    epsilon: float
    bias: bool = True
    groups: int = 1

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value:
        shape = (self.size,) if self.groups == 1 else (self.groups, self.size)
        bias = Weight(f"{at}.bias", shape) if self.bias else None
        return g.layer_norm(x, Weight(f"{at}.weight", shape), bias, self.epsilon, self.groups)
