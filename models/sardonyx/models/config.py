"""Reading a Hugging Face config strictly: every error names the field."""

from collections.abc import Mapping
from typing import Any


class ConfigError(ValueError):
    """A config lacks a field, holds a value of the wrong kind, or asks for what is not known here."""


_REQUIRED: Any = object()


def integer(config: Mapping[str, Any], field: str, default: Any = _REQUIRED) -> int:
    """A positive whole number. A field that is absent or null takes the default."""
    value = _field(config, field, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{field} is {value!r}, expected a positive whole number")
    return value


def number(config: Mapping[str, Any], field: str, default: Any = _REQUIRED) -> float:
    """A positive number."""
    value = _field(config, field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"{field} is {value!r}, expected a positive number")
    return float(value)


def flag(config: Mapping[str, Any], field: str, default: Any = _REQUIRED) -> bool:
    """True or false."""
    value = _field(config, field, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{field} is {value!r}, expected true or false")
    return value


def _field(config: Mapping[str, Any], field: str, default: Any) -> Any:
    value = config.get(field)
    if value is not None:
        return value
    if default is _REQUIRED:
        raise ConfigError(f"{field} is missing")
    return default
