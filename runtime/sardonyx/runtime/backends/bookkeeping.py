"""Which nodes of a graph only count: they make sizes, places and masks of integers, a few numbers each.

onnxruntime keeps such nodes off devices by design, or a device has no kernel for 64-bit integers; that they
run on the CPU is no fall-back of anything that takes time.
"""

from sardonyx.runtime.onnx_outline import Outline

KINDS = frozenset({"Shape", "Size", "Cast", "Range", "Squeeze", "Unsqueeze"})
"""Operators that count wherever they stand."""

COUNTS = ("int32", "int64", "bool")
TO_COUNT = (6, 7, 9)
"""The same, as Cast numbers them."""


def counting(outline: Outline) -> frozenset[str]:
    """Names of the nodes that read nothing but integers, or sizes."""
    known = {name for name, dtype in outline.types.items() if dtype in COUNTS}
    names = set()
    for node in outline.nodes:  # in the order in which they are computed
        whole = all(value in known for value in node.inputs if value)
        if whole:
            names.add(node.name)
        cast = node.attributes.get("to") in TO_COUNT if node.kind == "Cast" else whole
        if cast or node.kind in ("Shape", "Size"):
            known.update(node.outputs)
    return frozenset(names - {""})
