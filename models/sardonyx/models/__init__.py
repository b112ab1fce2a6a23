"""Descriptions of networks. Standard library only: what a network is, never how it is written or run.

An architecture is a module of this package named after its `model_type`, with `spec(config) -> Decoder` and a
tiny `EXAMPLE` config that the tests build, check and compare. The file name is the registration.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from sardonyx.models.config import ConfigError
from sardonyx.models.decoder import Decoder

__all__ = ["ConfigError", "Decoder", "UnknownModelType", "architectures", "describe"]


class UnknownModelType(ConfigError):  # noqa: N818
    """No description is named after this model_type."""


def architectures() -> dict[str, ModuleType]:
    """Every described architecture: model_type -> its module."""
    modules = (
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__) if not m.ispkg
    )
    return {module.__name__.rpartition(".")[2]: module for module in modules if hasattr(module, "EXAMPLE")}


def describe(config: Mapping[str, Any]) -> Decoder:
    """The decoder that a Hugging Face config describes. Raises ConfigError naming the field at fault."""
    model_type = config.get("model_type")
    known = architectures()
    if not isinstance(model_type, str) or model_type not in known:
        near = difflib.get_close_matches(str(model_type), known, n=1, cutoff=0.0)
        raise UnknownModelType(
            f"model_type {model_type!r} is not known; nearest: {near[0]}; known: {', '.join(known)}"
        )
    decoder: Decoder = known[model_type].spec(config)
    return decoder
