"""Feed-forward layers."""

from dataclasses import dataclass

from sardonyx.models.graph import Activation, Graph, Value
from sardonyx.models.parts.linear import linear


@dataclass(frozen=True)
class GatedMLP:
    """`down(act(gate(x)) * up(x))`: GLU variants (arXiv 2002.05202)."""

    hidden: int
    inner: int
    activation: Activation
    bias: bool = False

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value:
        gate, up = g.linear(
            x,
            linear(f"{at}.gate_proj", self.inner, self.hidden, bias=self.bias),
            linear(f"{at}.up_proj", self.inner, self.hidden, bias=self.bias),
        )
        inner = g.mul(g.activate(gate, self.activation), up)
        (down,) = g.linear(inner, linear(f"{at}.down_proj", self.hidden, self.inner, bias=self.bias))
        return down
