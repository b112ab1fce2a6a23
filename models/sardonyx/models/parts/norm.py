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
    """Layer norm (arXiv 1607.06450) over each of `groups` parts of so many features, `size` in all."""

    size: int
    epsilon: float
    bias: bool = True
    groups: int = 1

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value:
        bias = Weight(f"{at}.bias", (self.size,)) if self.bias else None
        return g.layer_norm(x, Weight(f"{at}.weight", (self.size,)), bias, self.epsilon, self.groups)
