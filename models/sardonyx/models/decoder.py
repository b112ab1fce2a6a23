"""The decoder: embed, blocks, norm, head."""

from dataclasses import dataclass

from sardonyx.models.blocks import Part
from sardonyx.models.graph import Graph, Value, Weight


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

    def emit(self, g: Graph[Value]) -> None:
        table = Weight("model.embed_tokens.weight", (self.vocab, self.hidden))
        x = g.embed(table)
        for index, block in enumerate(self.blocks):
            x = block.emit(g, x, f"model.layers.{index}")
        x = self.norm.emit(g, g.select(x), "model.norm")
        g.head(x, table if self.tied else Weight("lm_head.weight", table.shape))
