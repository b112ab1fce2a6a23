"""How stored tensors become the tensors that descriptions ask for: renamed, cut into pieces, put in order.

A layout is a table from a format's names to canonical ones. Numbers in names stand as `*`. Knows the means,
and no architecture: tables are beside the readers.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sardonyx.export.checkpoint import LazyTensor
from sardonyx.export.checkpoint.pieces import (
    Joined,
    Rows,
    elements,
    flattened,
    shifted,
    transposed,
    without_axis,
)
from sardonyx.export.checkpoint.stored import Deinterleaved, StoredTensor
from sardonyx.models.config import integer

Config = Mapping[str, Any]
Pieces = Iterable[tuple[str, LazyTensor]]
"""Canonical stems, each with its tensor."""

Cut = Callable[[LazyTensor, Config], Pieces]
"""What to make of a stored tensor."""

Layout = Mapping[str, str | Cut]
"""By stem, a name without `.weight` or `.bias`, or by a whole name."""

Shares = Callable[[Config], tuple[int, Iterable[int]]]
"""Into how many equal groups rows fall, and how many rows of each group the pieces take; the last takes the
rest.
"""

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


class MisfitError(ValueError):
    """A tensor that cannot be cut as its config says."""


def canonical(stored: Mapping[str, LazyTensor], layout: Layout, config: Config) -> dict[str, LazyTensor]:
    """All tensors by canonical names. What is not in the layout keeps its name; what several tensors are
    mapped to is joined, in the order of their numbers. Raises MisfitError.
    """
    found: dict[str, list[tuple[list[int], LazyTensor]]] = {}
    for name, tensor in stored.items():
        numbers = [int(number) for number in _NUMBER.findall(name)]
        try:
            for canonical_name, piece in _pieces(_NUMBER.sub("*", name), tensor, layout, config):
                found.setdefault(_numbered(canonical_name, numbers), []).append((numbers, piece))
        except MisfitError as error:
            raise MisfitError(f"tensor {name} {error}") from None
    return {name: _joined(parts) for name, parts in found.items()}


def has_place(name: str, layout: Layout) -> bool:
    """Whether a layout says what becomes of a tensor."""
    pattern = _NUMBER.sub("*", name)
    stem, _, suffix = pattern.rpartition(".")
    return pattern in layout or (stem in layout and suffix in ("weight", "bias"))


def _pieces(pattern: str, tensor: LazyTensor, layout: Layout, config: Config) -> Pieces:
    stem, dot, suffix = (pattern, "", "") if pattern in layout else pattern.rpartition(".")
    place = layout.get(stem, stem)
    pieces = [(place, tensor)] if isinstance(place, str) else place(tensor, config)
    return ((f"{name}{dot}{suffix}", piece) for name, piece in pieces)


def _numbered(pattern: str, numbers: Iterable[int]) -> str:
    for number in numbers:
        pattern = pattern.replace("*", str(number), 1)
    return pattern


def _joined(parts: list[tuple[list[int], LazyTensor]]) -> LazyTensor:
    if len(parts) == 1:
        return parts[0][1]
    return Joined([tensor for _, tensor in sorted(parts, key=lambda part: part[0])])


def split(shares: Shares, *stems: str) -> Cut:
    """Several layers that are stored as one."""

    def cut(tensor: LazyTensor, config: Config) -> Pieces:
        groups, sizes = shares(config)
        if tensor.shape[0] % groups:
            raise MisfitError(f"has {tensor.shape[0]} rows, not {groups} equal groups")
        start, group = 0, tensor.shape[0] // groups
        for stem, size in zip(stems, [*sizes, group], strict=True):
            stop = min(start + size, group)
            yield stem, Rows(tensor, groups, start, stop)
            start = stop

    return cut


def turned(place: str | Cut) -> Cut:
    """A matrix that is stored as `[inputs, outputs]`."""

    def cut(tensor: LazyTensor, config: Config) -> Pieces:
        whole = transposed(tensor)
        return [(place, whole)] if isinstance(place, str) else place(whole, config)

    return cut


def of_each_expert(place: str | Cut, suffix: str = "weight") -> Cut:
    """The slices of a tensor that holds all experts; in `place`, the second number is the expert's."""

    def cut(tensor: LazyTensor, config: Config) -> Pieces:
        assert isinstance(tensor, StoredTensor)
        for expert, part in enumerate(elements(tensor)):
            pieces = [(place, part)] if isinstance(place, str) else place(part, config)
            for stem, piece in pieces:
                layer, _, rest = stem.rpartition("*")
                yield f"{layer}{expert}{rest}.{suffix}", piece

    return cut


def plus_one(*stems: str) -> Layout:
    """Norms whose weights are stored as their difference from one."""

    def cut(stem: str) -> Cut:
        return lambda tensor, config: [(stem, shifted(tensor, 1))]

    return {stem: cut(stem) for stem in stems}


def deinterleaved(stem: str, heads: str, *, flat: bool = False) -> Cut:
    """Rows in the order of interleaved rotary embedding; `heads` is the config's field that counts them."""

    def cut(tensor: LazyTensor, config: Config) -> Pieces:
        whole = flattened(tensor) if flat else tensor
        count = integer(config, heads)
        width = config.get("head_dim") or whole.shape[0] // count
        if whole.shape[0] != count * width or width % 2:
            raise MisfitError(f"has {whole.shape[0]} rows, not {count} heads of {width}")
        return [(stem, Deinterleaved(whole, count))]

    return cut


def flat(stem: str) -> Cut:
    """A small tensor of any shape as a vector."""
    return lambda tensor, config: [(stem, flattened(tensor))]


def squeezed(stem: str) -> Cut:
    """Weights of a depthwise convolution, `[features, 1, taps]`, without the axis of one."""
    return lambda tensor, config: [(stem, without_axis(tensor))]


def unused(tensor: LazyTensor, config: Config) -> Pieces:
    """Something stored that has no effect, such as a mask."""
    return ()
