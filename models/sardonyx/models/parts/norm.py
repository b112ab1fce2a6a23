"""Normalisation layers."""

from dataclasses import dataclass

from sardonyx.models.graph import Graph, Value, Weight


@dataclass(frozen=True)
class RMSNorm:
    """Root mean square norm (arXiv 1910.07467) over `size` features."""

    size: int
    epsilon: float

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value:
        return g.rms_norm(x, Weight(f"{at}.weight", (self.size,)), self.epsilon)
