"""Which quantizer for which tensor: a recipe is a few readable rules, and the first that matches decides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from sardonyx.export.certificate import UNLIMITED, Limits
from sardonyx.export.checkpoint import Checkpoint
from sardonyx.export.quantizers import Choosing, Quantizer
from sardonyx.export.quantizers.gguf_blocks import as_stored
from sardonyx.export.quantizers.half import Half
from sardonyx.export.quantizers.nbits import BLOCKS, NBits
from sardonyx.export.quantizers.none import Float
from sardonyx.export.quantizers.w8a8 import W8A8
from sardonyx.runtime.errors import RequestError

TABLES = ("*embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class Recipe:
    """Rules from canonical tensor name (shell pattern) to quantizer."""

    name: str
    summary: str
    rules: tuple[tuple[str, Quantizer], ...]
    limits: Limits = UNLIMITED
    """What the recipe promises; an export that misses it fails."""
    fit: Callable[[Checkpoint], tuple[tuple[str, Quantizer], ...]] | None = None
    """Makes the rules, where they depend on what a checkpoint holds. Raises SourceError if there are none."""
    calibrate: bool = True
    """Whether the network may be run to see what its weights multiply."""
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    """By name, the divergence that each weight in 4 bits would cause, if the rules were made of it."""

    def fitted(self, checkpoint: Checkpoint) -> "Recipe":
        """The recipe with its rules for this checkpoint. Raises SourceError when it is not for such."""
        return self if self.fit is None else replace(self, rules=self.fit(checkpoint), fit=None)

    def in_blocks(self, size: int) -> "Recipe":
        """The recipe with as many weights to a scale wherever scales are by blocks. Raises RequestError for a
        recipe without such, and for a size that no kernel takes.
        """
        if size not in BLOCKS:
            known = ", ".join(map(str, BLOCKS))
            raise RequestError(f"blocks of {size} are not known; known: {known}")
        if not any(isinstance(quantizer, NBits) for _, quantizer in self.rules):
            raise RequestError(f"recipe {self.name} has no blocks whose size could be chosen")
        rules = (
            (pattern, replace(quantizer, block=size) if isinstance(quantizer, NBits) else quantizer)
            for pattern, quantizer in self.rules
        )
        return replace(self, rules=tuple(rules))

    @property
    def calibrated(self) -> bool:
        """Whether a quantizer makes use of what its matrix multiplies, and shall."""
        return self.calibrate and any(quantizer.calibrated for _, quantizer in self.rules)

    @property
    def sampled(self) -> bool:
        """Whether a quantizer looks at what its matrix multiplies, and shall."""
        return self.calibrate and any(isinstance(quantizer, Choosing) for _, quantizer in self.rules)

    def quantizer(self, weight: str) -> Quantizer:
        return next(quantizer for pattern, quantizer in self.rules if fnmatchcase(weight, pattern))


ROUTER, EXPERTS = "*.mlp.gate.weight", "*.mlp.experts.*"
"""A router is small, and a wrong choice of experts is worse than any rounding within them."""

QKV, LEAVING = "*.[qkv]_proj.weight", "*.down_proj.weight"
"""What 4 bits harm most for its size, values above all: measured one kind at a time, see docs/recipes.md.
Queries and keys are stored like values: then all three are one multiplication, which attention reads whole.
"""


def _tables(quantizer: Quantizer) -> tuple[tuple[str, Quantizer], ...]:
    return (*((pattern, quantizer) for pattern in TABLES), (ROUTER, Float()))


_RECIPES = (
    Recipe(
        "fp32",
        "float32 weights: the reference",
        (("*", Float()),),
        Limits(kl_mean=1e-6, noise=1e-3, flips=0.01),
    ),
    Recipe(
        "fp16",
        "float16 weights: for graphics cards; elsewhere half the file, and the memory of float32",
        ((EXPERTS, Float()), ("*", Half("float16"))),
        Limits(kl_mean=0.001, noise=1, flips=0.05),
    ),
    Recipe(
        "q8",
        "8-bit blocks of 32",
        (*_tables(NBits(8)), ("*", NBits(8))),
        Limits(kl_mean=0.006, noise=6, flips=0.2),
    ),
    Recipe(
        "int8",
        "8-bit weights and activations, vocabulary tables in 8-bit blocks",
        (*_tables(NBits(8)), (EXPERTS, NBits(8)), ("*", W8A8())),
        Limits(kl_mean=0.045, noise=12, flips=0.2),
    ),
    Recipe(
        "int4",
        "calibrated 4-bit blocks; vocabulary tables, queries to values, what leaves the MLP in 8-bit blocks",
        (*_tables(NBits(8)), (EXPERTS, NBits(4)), (QKV, NBits(8)), (LEAVING, NBits(8)), ("*", NBits(4))),
        Limits(kl_mean=0.12, noise=6, flips=0.2),
    ),
    Recipe(
        "int4-small",
        "calibrated 4-bit blocks, queries to values in 8-bit blocks",
        (*_tables(NBits(4)), (QKV, NBits(8)), ("*", NBits(4))),
        Limits(kl_mean=0.22, noise=6, flips=0.2),
    ),
    Recipe("gguf", "the blocks of a quantized GGUF, not quantized again", (), fit=as_stored),
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}
