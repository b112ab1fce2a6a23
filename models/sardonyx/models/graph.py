"""The one language in which networks are described.

A part writes itself into a `Graph` it is given; who interprets it (the ONNX writer, the numpy reference, the
cost counter) is not the part's business. Verbs are what decoders do, not what any runtime offers: lowering
happens behind them, in one place per target.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

Value = TypeVar("Value")
"""A tensor in flight: whatever the interpreter makes of it. Its last axis is the feature axis."""

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "tanh"]


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

    def at(self, context: int) -> "Rotation":
        """The rotation to use where a sequence may have `context` positions: always this one."""
        return self


@dataclass(frozen=True)
class LongRotation:
    """One rotation for contexts of up to `limit` positions, another for longer ones (LongRoPE, arXiv
    2402.13753).

    Cached keys have been turned already, so all positions of a sequence must be turned alike: what decides is
    the context that was made room for, not how long a text happens to become.
    """

    limit: int
    short: Rotation
    long: Rotation

    def at(self, context: int) -> Rotation:
        """The rotation to use where a sequence may have `context` positions."""
        return self.short if context <= self.limit else self.long


@dataclass(frozen=True)
class AttentionSpec:
    """Causal softmax attention of `heads` query heads over `kv_heads` shared key and value heads."""

    heads: int
    kv_heads: int
    head_width: int
    scale: float
    rotation: Rotation | LongRotation | None = None
    window: int | None = None
    """Only the last `window` positions are seen, the query's own among them. None sees all."""
    softcap: float | None = None


@dataclass(frozen=True)
class Expert:
    """One feed-forward of many: `down(gated(gate(x), up(x)))`."""

    gate: Linear
    up: Linear
    down: Linear


@dataclass(frozen=True)
class MixtureSpec:
    """A weighted sum of the `chosen` experts with the highest scores (arXiv 1701.06538, 2101.03961).

    An expert's weight is its share in the softmax of all scores, or with `normalized`, of the chosen ones'.
    Gated is `g * sigmoid(sharpness * g) * (u + offset)`, SiLU if sharpness is 1, where g is at most `limit`
    and u at most that far from zero.
    """

    chosen: int
    normalized: bool
    sharpness: float = 1.0
    offset: float = 0.0
    limit: float | None = None


@dataclass(frozen=True)
class StateSpec:
    """A tensor carried from step to step. `shape` is what one token holds (kv) or one sequence: its last
    positions, `[positions, features]` (window), or whatever it makes of all of them (recurrent).
    """

    name: str
    kind: Literal["kv", "window", "recurrent"]
    shape: tuple[int, ...]


class Graph(Protocol[Value]):
    """What a network may ask for: `[rows, tokens, features]` up to `select`, `[wanted, features]` after."""

    def embed(self, table: Weight) -> Value:
        """The rows of `table` for the input ids."""

    def embed_positions(self, table: Weight) -> Value:
        """The rows of `table` for the positions of the input ids, counted from the start of each sequence."""

    def linear(self, x: Value, *layers: Linear) -> tuple[Value, ...]:
        """Several linear layers that read the same x: one call, so that a target may pack them."""

    def add(self, a: Value, b: Value) -> Value: ...

    def mul(self, a: Value, b: Value) -> Value: ...

    def scale(self, x: Value, factor: float) -> Value: ...

    def activate(self, x: Value, function: Activation) -> Value: ...

    def rms_norm(self, x: Value, weight: Weight, epsilon: float, groups: int = 1) -> Value:
        """`x / sqrt(mean(x^2) + epsilon) * weight` over the last axis (arXiv 1910.07467).

        Cut into `groups` equal parts, each is normed by itself; they share a weight of one part's size.
        """

    def layer_norm(
        self, x: Value, weight: Weight, bias: Weight | None, epsilon: float, groups: int = 1
    ) -> Value:
        """`(x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias`, last axis (arXiv 1607.06450).

        Cut into `groups` equal parts, each is normed by itself, with its own part of weight and bias.
        """

    def attend(
        self, qkv: tuple[Value, Value, Value], spec: AttentionSpec, at: str, sinks: Weight | None = None
    ) -> Value:
        """Attention over this step's and all cached positions of the row; `at` names the layer's states.

        `sinks`, one number for each head, takes part in the softmax like the score of one more position that
        holds nothing (arXiv 2309.17453).
        """

    def convolve(self, x: Value, weight: Weight, bias: Weight | None, at: str) -> Value:
        """Each feature's weighted sum over the row's last positions: `weight` is `[features, taps]`, its last
        tap for the token itself. What lies before the start is zero; `at` names the layer's state.
        """

    def mixture(self, x: Value, scores: Value, experts: Sequence[Expert], spec: MixtureSpec) -> Value:
        """Experts chosen for each token by its `scores`, `[..., experts]`."""

    def select(self, x: Value) -> Value:
        """Keep the positions whose logits are wanted: nothing after this pays for the others."""

    def output(self, logits: Value, hidden: Value) -> None:
        """The logits `[wanted, vocab]`; if asked for, what they are made of, `[wanted, features]`, too."""
