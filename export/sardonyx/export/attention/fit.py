"""Heads of any width, brought into the shapes that the attention kernel takes.

The CPU kernel of GroupQueryAttention takes heads whose width is a multiple of 8, of 16 where they are
rotated, and rotates a multiple of 8 pairs of channels. Zeros make a head wider without changing a score; they
cost room in the cache. More pairs are made of the channels behind the rotated ones, and turned by nothing.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from sardonyx.export.onnx_builder import OnnxBuilder
from sardonyx.models.graph import Rotation

PAIRS = 8
WIDTH = {False: 8, True: 16}
"""What widths must be multiples of, without and with rotation."""


@dataclass(frozen=True)
class Fit:
    """How heads of `width` channels become heads of `kernel_width` with `still` more pairs, which rest."""

    width: int
    kernel_width: int
    still: int
    order: tuple[int, ...]
    """For each channel of the kernel, which of the widened head's it is."""

    @property
    def exact(self) -> bool:
        """The kernel takes the heads as they are."""
        return self.kernel_width == self.width and self.order == tuple(range(self.width))

    def turned(self, g: OnnxBuilder, x: ir.Value) -> ir.Value:
        """Queries or keys in the kernel's shape, `[rows, tokens, heads * kernel_width]`."""
        heads = self._widened(g, self._heads(g, x, self.width))
        if self.order != tuple(range(self.kernel_width)):
            heads = g.op("Gather", heads, g.constant(np.array(self.order, np.int64)), axis=-1)
        return self._flat(g, heads)

    def padded(self, g: OnnxBuilder, x: ir.Value) -> ir.Value:
        """Values in the kernel's shape."""
        return self._flat(g, self._widened(g, self._heads(g, x, self.width)))

    def cut(self, g: OnnxBuilder, x: ir.Value) -> ir.Value:
        """The kernel's output back in the network's shape, `[rows, tokens, heads * width]`."""
        if self.width == self.kernel_width:
            return x
        start, stop, axis = (g.constant(np.array([at], np.int64)) for at in (0, self.width, -1))
        return self._flat(g, g.op("Slice", self._heads(g, x, self.kernel_width), start, stop, axis))

    def _widened(self, g: OnnxBuilder, heads: ir.Value) -> ir.Value:
        if self.width == self.kernel_width:
            return heads
        pads = [0, 0, 0, 0, 0, 0, 0, self.kernel_width - self.width]
        return g.op("Pad", heads, g.constant(np.array(pads, np.int64)))

    def _heads(self, g: OnnxBuilder, x: ir.Value, width: int) -> ir.Value:
        return g.reshaped(x, 0, 0, -1, width)

    def _flat(self, g: OnnxBuilder, heads: ir.Value) -> ir.Value:
        return g.reshaped(heads, 0, 0, -1)


def fitted(width: int, rotation: Rotation | None) -> Fit:
    """The narrowest shape that the kernel takes."""
    kernel_width = _rounded_up(width, WIDTH[rotation is not None])
    if rotation is None:
        return Fit(width, kernel_width, 0, tuple(range(kernel_width)))
    pairs = len(rotation.frequencies)
    still = _rounded_up(pairs, PAIRS) - pairs
    spare = range(2 * pairs, 2 * pairs + 2 * still)
    order = [*range(pairs), *spare[:still], *range(pairs, 2 * pairs), *spare[still:]]
    order += range(len(order), kernel_width)
    return Fit(width, kernel_width, still, tuple(order))


def _rounded_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
