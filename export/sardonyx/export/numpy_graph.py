"""Graph -> arrays: the interpreter that says what a verb means, and that every artifact is held against.

One sequence, no cleverness: attention is written out, the cache is concatenation. It knows no quantizer: it
asks a function for weights, which may hand it what a quantizer left of them.
"""

from collections.abc import Callable, Sequence
from math import erf

import numpy as np
from numpy.typing import NDArray

from sardonyx.export.checkpoint import Float32
from sardonyx.models.decoder import Decoder
from sardonyx.models.graph import Activation, AttentionSpec, Expert, Linear, MixtureSpec, Rotation, Weight

Float64 = NDArray[np.float64]
Fetch = Callable[[Weight], Float32]
Precision = type[np.float64] | type[np.float32]

ACTIVATIONS: dict[Activation, Callable[[Float64], Float64]] = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "gelu": lambda x: x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
}


class NumpyGraph:
    """Implements `models.graph.Graph` by computing. Each `run` continues the sequence of those before it.

    The types say float64, which is what a reference needs; `precision` may say float32, which is faster.
    """

    def __init__(self, decoder: Decoder, fetch: Fetch, precision: Precision = np.float64) -> None:
        self._decoder = decoder
        self._fetch = fetch
        self._precision = precision
        self._cache: dict[str, Float64] = {}
        self._past = 0
        self._ids = np.empty(0, np.int64)
        self._logits = np.empty((0, 0))
        self.hidden = np.empty((0, 0))
        """What the head made the last logits of, `[tokens, hidden]`."""

    def run(self, tokens: Sequence[int]) -> Float64:
        """Logits of every position of these new tokens, `[tokens, vocab]`."""
        self.take(tokens)
        self._decoder.emit(self)
        self._past += len(tokens)
        return self._logits

    def take(self, tokens: Sequence[int]) -> None:
        """Take these as the new tokens, for a description that somebody else emits."""
        self._ids = np.array(tokens, np.int64)

    def embed(self, table: Weight) -> Float64:
        return self._weight(table)[self._ids]

    def embed_positions(self, table: Weight) -> Float64:
        return self._weight(table)[self._past : self._past + len(self._ids)]

    def linear(self, x: Float64, *layers: Linear) -> tuple[Float64, ...]:
        return tuple(
            x @ self._weight(layer.weight).T + (self._weight(layer.bias) if layer.bias else 0)
            for layer in layers
        )

    def add(self, a: Float64, b: Float64) -> Float64:
        return a + b

    def mul(self, a: Float64, b: Float64) -> Float64:
        return a * b

    def scale(self, x: Float64, factor: float) -> Float64:
        return x * factor

    def activate(self, x: Float64, function: Activation) -> Float64:
        return ACTIVATIONS[function](x).astype(self._precision, copy=False)

    def rms_norm(self, x: Float64, weight: Weight, epsilon: float, groups: int = 1) -> Float64:
        parts = x.reshape(len(x), groups, -1)
        normed: Float64 = parts / np.sqrt((parts**2).mean(-1, keepdims=True) + epsilon) * self._weight(weight)
        return normed.reshape(x.shape)

    def layer_norm(
        self, x: Float64, weight: Weight, bias: Weight | None, epsilon: float, groups: int = 1
    ) -> Float64:
        parts = x.reshape(len(x), groups, -1)
        centred = parts - parts.mean(-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        weighted: Float64 = normed.reshape(x.shape) * self._weight(weight)
        return weighted + (self._weight(bias) if bias else 0)

    def attend(
        self,
        qkv: tuple[Float64, Float64, Float64],
        spec: AttentionSpec,
        at: str,
        sinks: Weight | None = None,
    ) -> Float64:
        query, key, value = (x.reshape(len(x), -1, spec.head_width) for x in qkv)  # [tokens, heads, width]
        if spec.rotation:
            rotation = spec.rotation.at(self._decoder.context)
            query, key = self._rotated(query, rotation), self._rotated(key, rotation)
        key, value = (
            self._cached(f"{at}.key", key),
            self._cached(f"{at}.value", value),
        )  # [positions, kv_heads, width]
        group = spec.heads // spec.kv_heads
        query, key, value = (x.swapaxes(0, 1) for x in (query, key, value))  # heads first
        key, value = key.repeat(group, axis=0), value.repeat(group, axis=0)
        scores = query @ key.swapaxes(1, 2) * spec.scale
        if spec.softcap:
            scores = spec.softcap * np.tanh(scores / spec.softcap)
        tokens, positions = scores.shape[1:]
        back = np.arange(self._past, self._past + tokens)[:, None] - np.arange(positions)
        seen = (back >= 0) & (back < (spec.window or positions))
        scores = np.where(seen, scores, -np.inf)
        sink = self._weight(sinks)[:, None, None] if sinks else self._precision(-np.inf)
        largest = np.maximum(scores.max(-1, keepdims=True), sink)
        weights = np.exp(scores - largest)
        weights /= weights.sum(-1, keepdims=True) + np.exp(sink - largest)
        mixed: Float64 = (weights @ value).swapaxes(0, 1).reshape(tokens, -1)
        return mixed

    def convolve(self, x: Float64, weight: Weight, bias: Weight | None, at: str) -> Float64:
        taps = self._weight(weight).T  # [taps, features]
        seen = self._cached(f"{at}.conv", x)
        before = np.concatenate([np.zeros((len(taps) - 1, x.shape[1]), x.dtype), seen])
        total = sum(tap * before[self._past + i :][: len(x)] for i, tap in enumerate(taps))
        convolved: Float64 = total + (self._weight(bias) if bias else 0)
        return convolved

    def mixture(self, x: Float64, scores: Float64, experts: Sequence[Expert], spec: MixtureSpec) -> Float64:
        weights = np.exp(scores - scores.max(-1, keepdims=True))  # [tokens, experts]
        chosen = scores >= np.sort(scores)[:, [-spec.chosen]]
        total = np.where(chosen | (not spec.normalized), weights, 0).sum(-1, keepdims=True)
        mixed = np.zeros_like(x)
        for index, expert in enumerate(experts):
            (tokens,) = np.nonzero(chosen[:, index])
            if len(tokens):
                gate, up = self.linear(x[tokens], expert.gate, expert.up)
                if spec.limit:
                    gate, up = np.minimum(gate, spec.limit), np.clip(up, -spec.limit, spec.limit)
                inner = gate / (1 + np.exp(-spec.sharpness * gate)) * (up + spec.offset)
                share = weights[tokens, index, None] / total[tokens]
                mixed[tokens] += share * self.linear(inner, expert.down)[0]
        return mixed

    def select(self, x: Float64) -> Float64:
        return x

    def output(self, logits: Float64, hidden: Float64) -> None:
        self._logits, self.hidden = logits, hidden

    def _weight(self, weight: Weight) -> Float64:
        return self._fetch(weight).astype(self._precision, copy=False)

    def _cached(self, name: str, new: Float64) -> Float64:
        past = self._cache.get(name)
        self._cache[name] = new if past is None else np.concatenate([past, new])
        return self._cache[name]

    def _rotated(self, x: Float64, rotation: Rotation) -> Float64:
        """Channel pairs (i, i + pairs) turned by position times frequency; channels beyond are left alone."""
        pairs = len(rotation.frequencies)
        angles = np.arange(self._past, self._past + len(x))[:, None, None] * np.array(rotation.frequencies)
        cos, sin = (turn(angles).astype(x.dtype) * rotation.magnitude for turn in (np.cos, np.sin))
        a, b, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], -1)
