"""Mixers that look back a few tokens only."""

from dataclasses import dataclass

from sardonyx.models.graph import Graph, Value, Weight
from sardonyx.models.parts.linear import linear


@dataclass(frozen=True)
class ShortConvolution:
    """`out(c(x) * convolved(b(x) * v(x)))`: a gated convolution over the last `taps` tokens (LFM2)."""

    hidden: int
    taps: int
    bias: bool = False

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value:
        size = self.hidden
        before, after, value = g.linear(
            x, *(linear(f"{at}.{name}_proj", size, size, bias=self.bias) for name in ("b", "c", "x"))
        )
        bias = Weight(f"{at}.conv.bias", (size,)) if self.bias else None
        weight = Weight(f"{at}.conv.weight", (size, self.taps))
        mixed = g.mul(after, g.convolve(g.mul(before, value), weight, bias, at))
        (out,) = g.linear(mixed, linear(f"{at}.out_proj", size, size, bias=self.bias))
        return out
