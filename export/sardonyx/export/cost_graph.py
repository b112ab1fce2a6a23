"""Graph -> what it costs: the interpreter that only counts.

Parameters, multiply-adds and states of a network, and which tensors it wants, all without a weight being
read.
"""

from collections.abc import Sequence
from math import prod

from sardonyx.models.decoder import Decoder
from sardonyx.models.graph import Activation, AttentionSpec, Expert, Linear, MixtureSpec, StateSpec, Weight


class CostGraph:
    """Implements `models.graph.Graph[None]`; read the totals from its attributes after `emit`."""

    def __init__(self) -> None:
        self.weights: dict[str, Weight] = {}
        self.states: list[StateSpec] = []
        self.multiply_adds = 0
        """For one token, attention over cached positions not counted."""

    @property
    def parameters(self) -> int:
        """Numbers in all weights; a tied table counts once."""
        return sum(prod(weight.shape) for weight in self.weights.values())

    def embed(self, table: Weight) -> None:
        self._want(table)

    def embed_positions(self, table: Weight) -> None:
        self._want(table)

    def linear(self, x: None, *layers: Linear) -> tuple[None, ...]:
        for layer in layers:
            self._want(layer.weight)
            self.multiply_adds += prod(layer.weight.shape)
            if layer.bias:
                self._want(layer.bias)
        return (None,) * len(layers)

    def add(self, a: None, b: None) -> None: ...

    def mul(self, a: None, b: None) -> None: ...

    def scale(self, x: None, factor: float) -> None: ...

    def activate(self, x: None, function: Activation) -> None: ...

    def rms_norm(self, x: None, weight: Weight, epsilon: float, groups: int = 1) -> None:
        self._want(weight)

    def layer_norm(
        self, x: None, weight: Weight, bias: Weight | None, epsilon: float, groups: int = 1
    ) -> None:
        self._want(weight)
        if bias:
            self._want(bias)

    def attend(
        self, qkv: tuple[None, None, None], spec: AttentionSpec, at: str, sinks: Weight | None = None
    ) -> None:
        if sinks:
            self._want(sinks)
        for part in ("key", "value"):
            self.states.append(StateSpec(f"{at}.{part}", "kv", (spec.kv_heads, spec.head_width)))

    def convolve(self, x: None, weight: Weight, bias: Weight | None, at: str) -> None:
        self._want(weight)
        if bias:
            self._want(bias)
        self.multiply_adds += prod(weight.shape)
        self.states.append(StateSpec(f"{at}.conv", "window", (weight.shape[1] - 1, weight.shape[0])))

    def mixture(self, x: None, scores: None, experts: Sequence[Expert], spec: MixtureSpec) -> None:
        dense = self.multiply_adds
        for expert in experts:
            self.linear(None, expert.gate, expert.up, expert.down)
        self.multiply_adds = dense + (self.multiply_adds - dense) * spec.chosen // len(experts)

    def select(self, x: None) -> None: ...

    def output(self, logits: None, hidden: None) -> None: ...

    def _want(self, weight: Weight) -> None:
        self.weights[weight.name] = weight


def cost(decoder: Decoder) -> CostGraph:
    """Count a decoder."""
    graph = CostGraph()
    decoder.emit(graph)
    return graph
