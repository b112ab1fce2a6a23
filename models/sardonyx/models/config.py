"""Reading a Hugging Face config strictly: every error names the field."""

from collections.abc import Mapping, Sequence
from sys import float_info
from typing import Any

Config = Mapping[str, Any]


class ConfigError(ValueError):
    """A config lacks a field, holds a value of the wrong kind, or asks for what is not known here."""


_REQUIRED: Any = object()


def integer(config: Config, field: str, default: Any = _REQUIRED) -> int:
    """A positive whole number. A field that is absent or null takes the default."""
    value = _field(config, field, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{field} is {value!r}, expected a positive whole number")
    return value


def integer_or_none(config: Config, field: str, default: int | None = None) -> int | None:
    """A positive whole number, or None for null. A field that is absent takes the default."""
    return None if config.get(field, default) is None else integer(config, field, default)


def number(config: Config, field: str, default: Any = _REQUIRED) -> float:
    """A positive number."""
    value = _field(config, field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= float_info.max:
        raise ConfigError(f"{field} is {value!r:.40}, expected a positive number")
    return float(value)


def number_or_none(config: Config, field: str, default: float | None = None) -> float | None:
    """A positive number, or None for null. A field that is absent takes the default."""
    return None if config.get(field, default) is None else number(config, field, default)


def numbers(config: Config, field: str, count: int) -> tuple[float, ...]:
    """So many positive numbers."""
    values = _field(config, field, _REQUIRED)
    if not isinstance(values, Sequence) or len(values) != count:
        raise ConfigError(f"{field} is {values!r:.60}, expected {count} positive numbers")
    return tuple(number({field: value}, field) for value in values)


def flag(config: Config, field: str, default: Any = _REQUIRED) -> bool:
    """True or false."""
    value = _field(config, field, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{field} is {value!r}, expected true or false")
    return value


def layer_types(
    config: Config, default: Sequence[str], known: Sequence[str] = ("full_attention", "sliding_attention")
) -> Sequence[str]:
    """What kind each layer is of."""
    kinds = _field(config, "layer_types", default)
    if not isinstance(kinds, Sequence) or len(kinds) != len(default):
        raise ConfigError(f"layer_types is {kinds!r:.60}, expected a kind for each of {len(default)} layers")
    if unknown := [kind for kind in kinds if kind not in known]:
        raise ConfigError(f"layer_types names {unknown[0]!r}; known: {', '.join(sorted(known))}")
    return kinds


def table(config: Config, field: str) -> Config:
    """Fields within a field. Absent or null has none."""
    value = _field(config, field, {})
    if not isinstance(value, Mapping):
        raise ConfigError(f"{field} is {value!r:.60}, expected a table of fields")
    return value


def require(config: Config, *fields: str) -> None:
    """Refuse a config without these fields, whose defaults are one released model's and nobody else's."""
    for field in fields:
        _field(config, field, _REQUIRED)


def only(config: Config, field: str, *supported: Any) -> None:
    """Refuse a field that asks for what is not supported here. Absent or null asks for nothing."""
    value = config.get(field)
    if value is not None and value not in supported:
        expected = " or ".join(repr(value) for value in supported) or "no such field"
        raise ConfigError(f"{field} is {value!r}; supported: {expected}")


def _field(config: Config, field: str, default: Any) -> Any:
    value = config.get(field)
    if value is not None:
        return value
    if default is _REQUIRED:
        raise ConfigError(f"{field} is missing")
    return default
