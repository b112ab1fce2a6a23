"""The one language in which networks are described.

A part writes itself into a `Graph` it is given; who interprets it (the ONNX writer, the numpy reference, the
cost counter) is not the part's business. Verbs are what decoders do, not what any runtime offers: lowering
happens behind them, in one place per target.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from sardonyx.models.config import ConfigError

Value = TypeVar("Value")
"""A tensor in flight: whatever the interpreter makes of it. Its last axis is the feature axis."""

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True)
class Weight:
    """A tensor of the checkpoint, by its canonical (Hugging Face) name, with the shape it must have."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Linear:
    """`y = x W^T + b`, with W of shape `[outputs, inputs]` as checkpoints store it."""

    weight: Weight
    bias: Weight | None = None

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        return self.weight.shape[1]


@dataclass(frozen=True)
class Rotation:
    """Rotary position embedding (RoFormer, arXiv 2104.09864) as plain numbers, scaling already applied.

    `frequencies` are radians per position, one for each rotated pair of channels; channel i pairs with
    channel i + len(frequencies) (the half-split order of Hugging Face). `magnitude` multiplies cosine and
    sine.
    """

    frequencies: tuple[float, ...]
    magnitude: float = 1.0


@dataclass(frozen=True)
class AttentionSpec:
    """Causal softmax attention of `heads` query heads over `kv_heads` shared key and value heads."""

    heads: int
    kv_heads: int
    head_width: int
    scale: float
    rotation: Rotation | None = None
    window: int | None = None
    """Only the last `window` positions are seen, the query's own among them. None sees all."""
    softcap: float | None = None

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ConfigError(
                f"num_attention_heads is {self.heads}, not a multiple of num_key_value_heads, {self.kv_heads}"
            )


@dataclass(frozen=True)
class StateSpec:
    """A tensor carried from step to step; `shape` is what one token (kv) or one sequence holds."""

    name: str
    kind: Literal["kv", "window", "recurrent"]
    shape: tuple[int, ...]


class Graph(Protocol[Value]):
    """What a network may ask for: `[rows, tokens, features]` up to `select`, `[wanted, features]` after."""

    def embed(self, table: Weight) -> Value:
        """The rows of `table` for the input ids."""

    def linear(self, x: Value, *layers: Linear) -> tuple[Value, ...]:
        """Several linear layers that read the same x: one call, so that a target may pack them."""

    def add(self, a: Value, b: Value) -> Value: ...

    def mul(self, a: Value, b: Value) -> Value: ...

    def activate(self, x: Value, function: Activation) -> Value: ...

    def rms_norm(self, x: Value, weight: Weight, epsilon: float) -> Value:
        """`x / sqrt(mean(x^2) + epsilon) * weight` over the last axis (arXiv 1910.07467)."""

    def attend(self, qkv: tuple[Value, Value, Value], spec: AttentionSpec, at: str) -> Value:
        """Attention over this step's and all cached positions of the row; `at` names the layer's states."""

    def select(self, x: Value) -> Value:
        """Keep the positions whose logits are wanted: nothing after this pays for the others."""

    def head(self, x: Value, weight: Weight) -> None:
        """Project onto the vocabulary: the graph's output."""
