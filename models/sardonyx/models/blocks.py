"""How a mixer and a feed-forward are wired into a residual block."""

from dataclasses import dataclass
from typing import Protocol

from sardonyx.models.graph import Graph, Value


class Part(Protocol):
    """Anything that turns a value into a value of the same shape."""

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value: ...


@dataclass(frozen=True)
class PreNorm:
    """`x += mixer(norm(x)); x += ffn(norm(x))`, the wiring of Llama and most since."""

    mixer_norm: Part
    mixer: Part
    ffn_norm: Part
    ffn: Part

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value:
        mixed = self.mixer.emit(g, self.mixer_norm.emit(g, x, f"{at}.input_layernorm"), f"{at}.self_attn")
        x = g.add(x, mixed)
        fed = self.ffn.emit(g, self.ffn_norm.emit(g, x, f"{at}.post_attention_layernorm"), f"{at}.mlp")
        return g.add(x, fed)
