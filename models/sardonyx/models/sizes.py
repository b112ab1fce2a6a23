"""The numbers that every decoder's config has, by the names that most configs give them."""

from dataclasses import dataclass

from sardonyx.models.config import Config, ConfigError, integer
from sardonyx.models.decoder import Decoder
from sardonyx.models.graph import AttentionSpec, LongRotation, Rotation
from sardonyx.models.parts import Part


@dataclass(frozen=True)
class Sizes:
    """How large a decoder is."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    vocab: int
    context: int

    def __post_init__(self) -> None:
        if self.head_width < 1:
            raise ConfigError(f"{self.heads} attention heads are more than the hidden size, {self.hidden}")
        if self.heads % self.kv_heads:
            raise ConfigError(
                f"num_attention_heads is {self.heads}, not a multiple of num_key_value_heads, {self.kv_heads}"
            )

    def attention(self, rotation: Rotation | LongRotation | None, window: int | None = None) -> AttentionSpec:
        """Attention of this size, scaled as is usual."""
        scale = self.head_width**-0.5
        return AttentionSpec(self.heads, self.kv_heads, self.head_width, scale, rotation, window)

    def decoder(self, blocks: tuple[Part, ...], norm: Part, *, tied: bool) -> Decoder:
        """A decoder of this size, with nothing special at its ends."""
        return Decoder(self.vocab, self.hidden, self.context, blocks, norm, tied)


def sizes(config: Config) -> Sizes:
    """Read them. Heads are as wide as they divide the hidden size, and all have keys, unless it says else."""
    hidden, heads = integer(config, "hidden_size"), integer(config, "num_attention_heads")
    return Sizes(
        hidden=hidden,
        layers=integer(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=integer(config, "num_key_value_heads", heads),
        head_width=integer(config, "head_dim", hidden // heads),
        vocab=integer(config, "vocab_size"),
        context=integer(config, "max_position_embeddings"),
    )
