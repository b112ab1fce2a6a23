"""Rotary position embedding: from a config's words to plain frequencies.

Every scaling is computed here, once, so that interpreters see numbers only. A scaling of unknown name, or
with a number that nobody here reads, is an error: a guess would give text that is fluent and wrong.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from sardonyx.models.config import Config, ConfigError, flag, number, numbers, table
from sardonyx.models.graph import LongRotation, Rotation

Frequencies = tuple[float, ...]
Rotary = Rotation | LongRotation

THETA = 10000.0


def rotation(config: Config, width: int) -> Rotary:
    """The rotation of a config's `rope_theta` and `rope_scaling`, over the first `partial_rotary_factor` of
    `width` channels of each head.

    Scalings as Hugging Face's `modeling_rope_utils` defines them. A config may also hold all this in one
    field, `rope_parameters`, as transformers 5 writes it.
    """
    stated = table(config, "rope_parameters")
    whole = {**config, **stated}
    scaling = {**table(config, "rope_scaling"), **stated}
    rotated = int(width * number(whole, "partial_rotary_factor", 1.0))
    if not 2 <= rotated <= width or rotated % 2:
        raise ConfigError(f"partial_rotary_factor rotates {rotated} of {width} channels of a head")
    return scaled(scaling, frequencies(number(whole, "rope_theta", THETA), rotated), config)


def frequencies(theta: float, width: int) -> Frequencies:
    """Radians per position of each of `width / 2` pairs (RoFormer, arXiv 2104.09864)."""
    return tuple(theta ** (-2 * i / width) for i in range(width // 2))


def scaled(scaling: Mapping[str, Any], plain: Frequencies, config: Config) -> Rotary:
    """Frequencies after a config's scaling."""
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if not isinstance(kind, str) or kind not in SCALINGS:
        raise ConfigError(f"rope_scaling {kind!r} is not known; known: {', '.join(SCALINGS)}")
    scale, fields = SCALINGS[kind]
    if unread := sorted(scaling.keys() - fields - COMMON_FIELDS):
        raise ConfigError(f"rope_scaling {kind!r} has {unread[0]}, which is not known")
    return scale(plain, scaling, config)


def _default(plain: Frequencies, scaling: Mapping[str, Any], config: Config) -> Rotation:
    return Rotation(plain)


def _linear(plain: Frequencies, scaling: Mapping[str, Any], config: Config) -> Rotation:
    factor = number(scaling, "factor")
    return Rotation(tuple(f / factor for f in plain))


def _llama3(plain: Frequencies, scaling: Mapping[str, Any], config: Config) -> Rotation:
    """Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended."""
    factor = number(scaling, "factor")
    low, high = number(scaling, "low_freq_factor"), number(scaling, "high_freq_factor")
    original = number(scaling, "original_max_position_embeddings")

    def scaled(frequency: float) -> float:
        turns = original * frequency / (2 * math.pi)
        keep = min(max((turns - low) / (high - low), 0.0), 1.0)
        return frequency * keep + frequency / factor * (1 - keep)

    return Rotation(tuple(map(scaled, plain)))


def _yarn(plain: Frequencies, scaling: Mapping[str, Any], config: Config) -> Rotation:
    """YaRN (arXiv 2309.00071): as llama3, but blended linearly in the index of the frequency."""
    factor = number(scaling, "factor")
    original = number(scaling, "original_max_position_embeddings", _context(config))
    pairs = len(plain)
    first = -math.log(plain[1]) if pairs > 1 else 1.0  # log of the ratio of neighbours

    def index(turns: float) -> float:
        """Of the frequency that turns so often within the original context."""
        return math.log(original / (turns * 2 * math.pi)) / first

    low = index(number(scaling, "beta_fast", 32))
    high = index(number(scaling, "beta_slow", 1))
    if flag(scaling, "truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)
    high += 0.001 if low == high else 0

    def blended(i: int, frequency: float) -> float:
        stretch = min(max((i - low) / (high - low), 0.0), 1.0)
        return frequency / factor * stretch + frequency * (1 - stretch)

    return Rotation(tuple(blended(i, f) for i, f in enumerate(plain)), _yarn_magnitude(scaling, factor))


def _yarn_magnitude(scaling: Mapping[str, Any], factor: float) -> float:
    def magnitude(share: float) -> float:
        return 1 + 0.1 * share * math.log(factor) if factor > 1 else 1.0

    both = scaling.get("mscale") and scaling.get("mscale_all_dim")
    default = magnitude(scaling["mscale"]) / magnitude(scaling["mscale_all_dim"]) if both else magnitude(1)
    return number(scaling, "attention_factor", default)


def _longrope(plain: Frequencies, scaling: Mapping[str, Any], config: Config) -> LongRotation:
    """LongRoPE (arXiv 2402.13753): a divisor for each frequency, others beyond the original context."""
    context = _context(config)
    limit = int(number({**config, **scaling}, "original_max_position_embeddings", context))
    if limit < 2:
        raise ConfigError(f"original_max_position_embeddings is {limit}, too few for longrope")
    factor = context / limit if limit != context else number(scaling, "factor", 1.0)
    default = math.sqrt(1 + math.log(factor) / math.log(limit)) if factor > 1 else 1.0
    magnitude = number(scaling, "attention_factor", default)

    def divided(field: str) -> Rotation:
        divisors = numbers(scaling, field, len(plain))
        return Rotation(tuple(f / d for f, d in zip(plain, divisors, strict=True)), magnitude)

    return LongRotation(limit, divided("short_factor"), divided("long_factor"))


def _context(config: Config) -> float:
    return number(config, "max_position_embeddings")


Scaling = Callable[[Frequencies, Mapping[str, Any], Config], Rotary]

COMMON_FIELDS = frozenset(
    {"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings"}
)
_LONGROPE = frozenset({"attention_factor", "long_factor", "short_factor"})
_YARN = frozenset({"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"})

SCALINGS: Mapping[str, tuple[Scaling, frozenset[str]]] = {
    "default": (_default, frozenset()),
    "dynamic": (_default, frozenset()),  # differs only beyond max_position_embeddings, where nothing may go
    "linear": (_linear, frozenset()),
    "llama3": (_llama3, frozenset({"low_freq_factor", "high_freq_factor"})),
    "yarn": (_yarn, _YARN),
    "longrope": (_longrope, _LONGROPE),
}
"""By the names of transformers: what computes them, and which fields it reads."""
