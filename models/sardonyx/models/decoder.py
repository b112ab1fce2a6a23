"""The decoder: embed, blocks, norm, head."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from sardonyx.models.graph import Graph, Linear, Value, Weight
from sardonyx.models.parts import Part


@dataclass(frozen=True)
class Embedding:
    """What becomes of a token's row before the first block. `positions` rows are learned, if any are."""

    scale: float = 1.0
    positions: int | None = None


@dataclass(frozen=True)
class Head:
    """What becomes of the logits: `softcap * tanh(scale * logits / softcap)`."""

    bias: bool = False
    scale: float = 1.0
    softcap: float | None = None


@dataclass(frozen=True)
class Decoder:
    """A causal language model over `vocab` tokens and at most `context` positions."""

    vocab: int
    hidden: int
    context: int
    blocks: tuple[Part, ...]
    norm: Part
    tied: bool
    """The head is the embedding table, read the other way."""
    embedding: Embedding = Embedding()
    head: Head = Head()

    def emit(self, g: Graph[Value]) -> None:
        x: Any = None
        for stage in self.stages():
            x = stage(g, x)

    def stages(self) -> Iterator[Callable[[Graph[Value], Any], Any]]:
        """The network in steps, each from what the one before it gave: embedding (from nothing), blocks, head
        (to nothing).
        """
        yield self._embedded
        for index, block in enumerate(self.blocks):
            yield partial(block.emit, at=f"model.layers.{index}")
        yield self._read_out

    def _read_out(self, g: Graph[Value], x: Value) -> None:
        x = self.norm.emit(g, g.select(x), "model.norm")
        g.output(self._logits(g, x), hidden=x)

    @property
    def _table(self) -> Weight:
        return Weight("model.embed_tokens.weight", (self.vocab, self.hidden))

    def _embedded(self, g: Graph[Value], nothing: None) -> Value:
        x = g.embed(self._table)
        if self.embedding.scale != 1:
            x = g.scale(x, self.embedding.scale)
        if self.embedding.positions is not None:
            table = Weight("model.embed_positions.weight", (self.embedding.positions, self.hidden))
            x = g.add(x, g.embed_positions(table))
        return x

    def _logits(self, g: Graph[Value], x: Value) -> Value:
        table = self._table if self.tied else Weight("lm_head.weight", self._table.shape)
        bias = Weight("lm_head.bias", (self.vocab,)) if self.head.bias else None
        (logits,) = g.linear(x, Linear(table, bias))
        cap = self.head.softcap
        scale = self.head.scale / (cap or 1)
        if scale != 1:
            logits = g.scale(logits, scale)
        return g.scale(g.activate(logits, "tanh"), cap) if cap else logits
