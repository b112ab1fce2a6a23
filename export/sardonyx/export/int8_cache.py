"""Keys and values in 8 bits: how large they get, channel by channel, seen on text while the cache is float32.

A scale belongs to one channel of one head and stays: what a text makes larger than any seen here is clipped.
It knows artifacts as they are used, and nothing of the kernel that takes the scales.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from sardonyx.export.certificate import Limits
from sardonyx.export.checkpoint import Float32
from sardonyx.export.onnx_builder import Scales
from sardonyx.export.texts import own_texts
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.llm import LLM, MAPPED
from sardonyx.runtime.saved_prefix import read

WINDOWS = 16
"""Of the project's own texts, none of which a certificate measures unless it is thorough."""

KL_ADDED = 0.01
"""Nats per token that 8 bits may cost beyond what a recipe promises."""

NOISE, FLIPS = 6.0, 0.2
"""Between ways of feeding, whatever the recipe: a last bit can round a key to the next step."""

LEAST = 1e-6
"""Of a scale: channels that only fill heads up to a width are zero throughout."""


def limits_with(limits: Limits) -> Limits:
    """What a recipe that promises this promises with keys and values in 8 bits. Nothing stays nothing."""
    least = {"kl_mean": (limits.kl_mean or 0) + KL_ADDED, "noise": NOISE, "flips": FLIPS}
    given = msgspec.structs.asdict(limits)
    raised = {name: max(given[name], limit) for name, limit in least.items() if given[name] is not None}
    return msgspec.structs.replace(limits, **raised)


def scales(reference: Path) -> Scales:
    """What steps are worth, as a float32 artifact shows: the largest number of a channel takes 127 of them.

    Raises RequestError for a model that has other states besides keys and values.
    """
    llm = LLM.load(reference, check=False, place=MAPPED)
    if not all(state.kind == "kv" for state in llm.manifest.states):
        raise RequestError("this model remembers more than keys and values: its cache stays float32")
    measured = {tuple(window) for some in own_texts(llm).windows.values() for window in some}
    others = [
        window
        for some in own_texts(llm, thorough=True).windows.values()
        for window in some
        if tuple(window) not in measured
    ]
    windows = others[:: max(1, len(others) // WINDOWS)][:WINDOWS] or sorted(measured)[:WINDOWS]
    largest: dict[str, Float32] = {}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "window.kv"
        for window in windows:
            llm.save_prefix(window, file)
            for state, seen in zip(llm.manifest.states, read(file, llm.manifest).states, strict=True):
                most = np.abs(seen).max(axis=1)  # [heads, width]
                name = state.input.removeprefix("past_key_values.")
                largest[name] = np.maximum(largest.get(name, most), most)
    return {name: _scale(most) for name, most in largest.items()}


def _scale(most: Float32) -> Float32:
    scale: Float32 = np.maximum(most / np.float32(127), np.float32(LEAST))[None, :, None]
    return scale
