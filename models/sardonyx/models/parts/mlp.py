"""Feed-forward layers."""

from collections.abc import Mapping
from dataclasses import dataclass

from sardonyx.models.config import Config, ConfigError
from sardonyx.models.graph import Activation, Graph, Value
from sardonyx.models.parts.linear import linear

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
"""Functions by the names that transformers gives them."""


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


@dataclass(frozen=True)
class MLP:
    """`down(act(up(x)))`."""

    hidden: int
    inner: int
    activation: Activation
    bias: bool = False

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value:
        (up,) = g.linear(x, linear(f"{at}.up_proj", self.inner, self.hidden, bias=self.bias))
        inner = g.activate(up, self.activation)
        (down,) = g.linear(inner, linear(f"{at}.down_proj", self.hidden, self.inner, bias=self.bias))
        return down


def activation(config: Config, field: str = "hidden_act", default: str = "silu") -> Activation:
    """A function by its name in transformers. One that is not known is an error, not a guess."""
    name = config.get(field) or default
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ConfigError(f"{field} is {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
