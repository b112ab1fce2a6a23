"""Feed-forwards of which only some are asked."""

from dataclasses import dataclass

from sardonyx.models.graph import Expert, Graph, MixtureSpec, Value
from sardonyx.models.parts.linear import linear


@dataclass(frozen=True)
class Mixture:
    """`experts` gated feed-forwards and the router that scores them for each token."""

    hidden: int
    inner: int
    experts: int
    spec: MixtureSpec
    bias: bool = False

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value:
        (scores,) = g.linear(x, linear(f"{at}.gate", self.experts, self.hidden, bias=self.bias))
        experts = [self._expert(f"{at}.experts.{index}") for index in range(self.experts)]
        return g.mixture(x, scores, experts, self.spec)

    def _expert(self, at: str) -> Expert:
        return Expert(
            linear(f"{at}.gate_proj", self.inner, self.hidden, bias=self.bias),
            linear(f"{at}.up_proj", self.inner, self.hidden, bias=self.bias),
            linear(f"{at}.down_proj", self.hidden, self.inner, bias=self.bias),
        )
