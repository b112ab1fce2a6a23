"""Values held to their annotations, which msgspec does only for what it decodes. Knows no parameter."""

from collections.abc import Iterator
from functools import reduce
from inspect import formatannotation
from math import isfinite
from operator import or_
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from sardonyx.runtime.errors import RequestError


def checked(name: str, value: Any, kind: Any) -> Any:
    """A value as its annotated type has it. A list may stand for a tuple, a whole number for a float.

    Raises RequestError naming it when it is of another type, out of the bounds of its annotation, or not
    finite.
    """
    try:
        taken = msgspec.convert(value, kind)
    except msgspec.ValidationError:
        plain = bare(kind)
        try:
            msgspec.convert(value, plain)
        except msgspec.ValidationError:
            raise RequestError(f"{name}={value!r} is not of type {formatannotation(plain)}") from None
        raise out_of_range(name, value, " and ".join(_bounds(kind))) from None
    if not all(map(isfinite, _numbers(taken))):
        raise out_of_range(name, value, "finite")
    if isinstance(taken, float) and taken != value:  # a whole number beyond 2**53
        raise out_of_range(name, value, "a number that a float can hold")
    return taken


def out_of_range(name: str, value: Any, range_text: str) -> RequestError:
    """The error of a value that cannot be taken."""
    return RequestError(f"{name}={value!r} is out of range: it must be {range_text}")


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, dict):
        yield from value.values()


def _bounds(kind: Any) -> Iterator[str]:
    """What the annotations of a type say of its values."""
    if bool in get_args(kind) and get_origin(kind) is not Annotated:  # or one of a few words
        words = (bound.removeprefix("one of ") for part in get_args(kind) for bound in _bounds(part))
        yield " or ".join(("True, False", *words))
        return
    for part in get_args(kind):
        if isinstance(part, msgspec.Meta):
            texts = {"above": part.gt, "at least": part.ge, "below": part.lt, "at most": part.le}
            yield from (f"{text} {bound}" for text, bound in texts.items() if bound is not None)
        else:
            yield from _bounds(part)
    if get_origin(kind) is Literal:
        yield f"one of {', '.join(get_args(kind))}"


def bare(kind: Any) -> Any:
    """A type without annotations; a choice of texts is a text."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return str
    if origin is Annotated:
        return bare(parts[0])
    if origin in (Union, UnionType):
        return reduce(or_, map(bare, parts))
    return origin[tuple(part if part is ... else bare(part) for part in parts)] if parts else kind
