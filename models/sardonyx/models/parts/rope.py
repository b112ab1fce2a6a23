"""Rotary position embedding: from a config's words to plain frequencies.

Every scaling is computed here, once, so that interpreters see numbers only. A scaling of unknown name is an
error: a guess would give text that is fluent and wrong.
"""

import math
from collections.abc import Mapping
from typing import Any

from sardonyx.models.config import ConfigError, number
from sardonyx.models.graph import Rotation


def rotation(config: Mapping[str, Any], width: int) -> Rotation:
    """The rotation of a config's `rope_theta` and `rope_scaling`, over `width` channels of each head.

    Scalings as Hugging Face's `modeling_rope_utils` defines them: `default`, `linear`, `llama3`.
    """
    theta = number(config, "rope_theta", 10000.0)
    frequencies = tuple(theta ** (-2 * i / width) for i in range(width // 2))
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return Rotation(frequencies)
    if kind == "linear":
        factor = number(scaling, "factor")
        return Rotation(tuple(f / factor for f in frequencies))
    if kind == "llama3":
        return Rotation(_llama3(frequencies, scaling))
    raise ConfigError(f"rope_scaling {kind!r} is not known; known: default, linear, llama3")


def _llama3(frequencies: tuple[float, ...], scaling: Mapping[str, Any]) -> tuple[float, ...]:
    """Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended."""
    factor = number(scaling, "factor")
    low, high = number(scaling, "low_freq_factor"), number(scaling, "high_freq_factor")
    original = number(scaling, "original_max_position_embeddings")

    def scaled(frequency: float) -> float:
        turns = original * frequency / (2 * math.pi)
        keep = min(max((turns - low) / (high - low), 0.0), 1.0)
        return frequency * keep + frequency / factor * (1 - keep)

    return tuple(map(scaled, frequencies))
