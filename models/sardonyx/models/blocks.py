"""How a mixer and a feed-forward are wired into a block of residuals.

The names are Hugging Face's for Llama, which most checkpoints use; readers bring the others to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sardonyx.models.graph import Graph, Value
from sardonyx.models.parts import Part

Branch = Mapping[str, Part]
"""Parts one after another, each under its name."""


@dataclass(frozen=True, init=False)
class Residual:
    """`x + scale * (branch(x) + ...)`: all branches read the same x."""

    branches: tuple[Branch, ...]
    scale: float

    def __init__(self, *branches: Branch, scale: float = 1.0) -> None:
        object.__setattr__(self, "branches", branches)
        object.__setattr__(self, "scale", scale)

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value:
        total = x
        for branch in self.branches:
            value = x
            for name, part in branch.items():
                value = part.emit(g, value, f"{at}.{name}")
            total = g.add(total, value if self.scale == 1 else g.scale(value, self.scale))
        return total


@dataclass(frozen=True)
class Block:
    """Residuals one after another."""

    residuals: tuple[Residual, ...]

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value:
        for residual in self.residuals:
            x = residual.emit(g, x, at)
        return x


def pre_norm(norm: Part, mixer: Part, ffn: Part, scale: float = 1.0) -> Block:
    """`x += mixer(norm(x)); x += ffn(norm(x))`, the wiring of Llama and most since."""
    return Block(
        (
            Residual({"input_layernorm": norm, "self_attn": mixer}, scale=scale),
            Residual({"post_attention_layernorm": norm, "mlp": ffn}, scale=scale),
        )
    )


def post_norm(norm: Part, mixer: Part, ffn: Part) -> Block:
    """`x += norm(mixer(x)); x += norm(ffn(x))`: what is added is normed, not what is read (OLMo 2)."""
    return Block(
        (
            Residual({"self_attn": mixer, "post_attention_layernorm": norm}),
            Residual({"mlp": ffn, "post_feedforward_layernorm": norm}),
        )
    )


def sandwich(norm: Part, mixer: Part, ffn: Part) -> Block:
    """`x += norm(mixer(norm(x))); x += norm(ffn(norm(x)))`, each norm with its own weights (Gemma 2)."""
    return Block(
        (
            Residual({"input_layernorm": norm, "self_attn": mixer, "post_attention_layernorm": norm}),
            Residual({"pre_feedforward_layernorm": norm, "mlp": ffn, "post_feedforward_layernorm": norm}),
        )
    )


def parallel(norm: Part, mixer: Part, ffn: Part) -> Block:
    """`x += mixer(n) + ffn(n)` with one `n = norm(x)` (GPT-J, Cohere)."""
    return Block(
        (Residual({"input_layernorm": norm, "self_attn": mixer}, {"input_layernorm": norm, "mlp": ffn}),)
    )


def parallel_two_norms(norm: Part, mixer: Part, ffn: Part) -> Block:
    """`x += mixer(norm(x)) + ffn(norm(x))`, each norm with its own weights (GPT-NeoX)."""
    return Block(
        (
            Residual(
                {"input_layernorm": norm, "self_attn": mixer},
                {"post_attention_layernorm": norm, "mlp": ffn},
            ),
        )
    )
