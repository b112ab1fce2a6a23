"""Rotary scaling as GGUF states it, in the terms of Hugging Face's `rope_scaling`.

llama.cpp stores the scaling of Llama 3.1 and later not as its four numbers but as their effect: a tensor with
one divisor per rotary frequency. The numbers are recovered from it and checked against it, or the file is
refused.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sardonyx.export.checkpoint.gguf_header import Metadata
from sardonyx.runtime.errors import SourceError

KEYS = frozenset(
    {"rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scale_linear"}
)


def rope_scaling(metadata: Metadata, prefix: str) -> dict[str, Any] | None:
    """`rope_scaling` from the keys behind `<prefix>rope.`, None where there is no scaling. Raises
    SourceError.
    """
    kind = metadata.get(f"{prefix}rope.scaling.type", str)
    factor = metadata.get(f"{prefix}rope.scaling.factor", float)
    linear = metadata.get(f"{prefix}rope.scale_linear", float)
    if kind is None and factor is None and linear is not None:  # as files were written before October 2023
        kind, factor = "linear", linear
    if kind == "linear" or (kind is None and factor is not None):  # llama.cpp's default
        return {"rope_type": "linear", "factor": factor or 1.0} if factor not in (None, 0.0, 1.0) else None
    if kind in (None, "none"):
        return None
    if kind == "yarn":
        original = metadata.require(f"{prefix}rope.scaling.original_context_length", int)
        factor = metadata.require(f"{prefix}rope.scaling.factor", float)
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    raise SourceError(f"{metadata.path}: rotary scaling {kind!r} is not supported (linear and yarn are)")


def llama3_scaling(divisors: NDArray[np.float32], theta: float) -> dict[str, Any] | None:
    """The `llama3` scaling whose effect `divisors` `[head_dim / 2]` is, None if there is none.

    It divides frequencies of long waves by `factor`, keeps those of short waves, and in between interpolates
    linearly in 1 / wavelength (transformers' `_compute_llama3_parameters`). Only two ratios of its three
    remaining numbers have an effect, so `low_freq_factor` is 1, as in every released model.
    """
    divisors = divisors.astype(np.float64)
    factor = float(f"{divisors.max():.7g}")
    if not np.all(np.isfinite(divisors)) or divisors.min() < 1 or factor <= 1:
        return None
    share = (1 / divisors - 1 / factor) / (1 - 1 / factor)  # of the original frequency that is kept
    between = (share > 1e-6) & (share < 1 - 1e-6)
    if np.count_nonzero(between) < 2:
        return None
    slope, intercept = np.polyfit(_waves_per_token(len(divisors), theta)[between], share[between], 1)
    if intercept >= 0 or slope <= 0:
        return None
    for digits in (4, 7):  # round numbers first
        scaling = {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": float(f"{1 - 1 / intercept:.{digits}g}"),
            "original_max_position_embeddings": round(-slope / intercept),
        }
        if np.allclose(llama3_divisors(scaling, len(divisors), theta), divisors, rtol=1e-5, atol=0):
            return scaling
    return None


def llama3_divisors(scaling: Mapping[str, Any], count: int, theta: float) -> NDArray[np.float64]:
    """What each of `count` rotary frequencies is divided by: the inverse of `llama3_scaling`."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    waves = _waves_per_token(count, theta) * scaling["original_max_position_embeddings"]
    share = np.clip((waves - low) / (high - low), 0, 1)
    divisors: NDArray[np.float64] = 1 / ((1 - share) / scaling["factor"] + share)
    return divisors


def _waves_per_token(count: int, theta: float) -> NDArray[np.float64]:
    waves: NDArray[np.float64] = theta ** (-np.arange(count) / count) / (2 * np.pi)
    return waves
