"""Attention layers."""

from dataclasses import dataclass

from sardonyx.models.graph import AttentionSpec, Graph, Value
from sardonyx.models.parts.linear import linear


@dataclass(frozen=True)
class Attention:
    """Grouped-query attention (arXiv 2305.13245) with its four projections."""

    hidden: int
    spec: AttentionSpec
    input_bias: bool = False
    output_bias: bool = False

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value:
        queries = self.spec.heads * self.spec.head_width
        keys = self.spec.kv_heads * self.spec.head_width
        q, k, v = g.linear(
            x,
            linear(f"{at}.q_proj", queries, self.hidden, bias=self.input_bias),
            linear(f"{at}.k_proj", keys, self.hidden, bias=self.input_bias),
            linear(f"{at}.v_proj", keys, self.hidden, bias=self.input_bias),
        )
        mixed = g.attend((q, k, v), self.spec, at)
        (out,) = g.linear(mixed, linear(f"{at}.o_proj", self.hidden, queries, bias=self.output_bias))
        return out
