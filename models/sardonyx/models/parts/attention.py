"""Attention layers."""

from dataclasses import dataclass

from sardonyx.models.graph import AttentionSpec, Graph, Value, Weight
from sardonyx.models.parts import Part
from sardonyx.models.parts.linear import linear


@dataclass(frozen=True)
class Attention:
    """Grouped-query attention (arXiv 2305.13245) with its four projections.

    Queries and keys may be normed before they are rotated; `sinks` gives each head a learned one.
    """

    hidden: int
    spec: AttentionSpec
    input_bias: bool = False
    output_bias: bool = False
    query_norm: Part | None = None
    key_norm: Part | None = None
    sinks: bool = False

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value:
        queries = self.spec.heads * self.spec.head_width
        keys = self.spec.kv_heads * self.spec.head_width
        q, k, v = g.linear(
            x,
            linear(f"{at}.q_proj", queries, self.hidden, bias=self.input_bias),
            linear(f"{at}.k_proj", keys, self.hidden, bias=self.input_bias),
            linear(f"{at}.v_proj", keys, self.hidden, bias=self.input_bias),
        )
        if self.query_norm:
            q = self.query_norm.emit(g, q, f"{at}.q_norm")
        if self.key_norm:
            k = self.key_norm.emit(g, k, f"{at}.k_norm")
        sinks = Weight(f"{at}.sinks", (self.spec.heads,)) if self.sinks else None
        mixed = g.attend((q, k, v), self.spec, at, sinks)
        (out,) = g.linear(mixed, linear(f"{at}.o_proj", self.hidden, queries, bias=self.output_bias))
        return out
