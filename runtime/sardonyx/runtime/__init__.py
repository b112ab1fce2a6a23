"""Running artifacts: numpy and onnxruntime, no torch.

    from sardonyx.runtime import LLM, SamplingParams
    print(LLM.load("model-int4").generate("Once upon a time", SamplingParams(max_tokens=50)).text)

The names below are imported when they are first used, so that the command line starts without numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sardonyx.runtime.answer import Completion, Usage
    from sardonyx.runtime.errors import SardonyxError
    from sardonyx.runtime.llm import LLM
    from sardonyx.runtime.model import Memory
    from sardonyx.runtime.params import SamplingParams
    from sardonyx.runtime.prefixes import Reuse
    from sardonyx.runtime.stream import Stream

__all__ = ["LLM", "Completion", "Memory", "Reuse", "SamplingParams", "SardonyxError", "Stream", "Usage"]

_HOMES = {
    "LLM": "llm",
    "Stream": "stream",
    "Memory": "model",
    "Reuse": "prefixes",
    "Completion": "answer",
    "Usage": "answer",
    "SamplingParams": "params",
    "SardonyxError": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
