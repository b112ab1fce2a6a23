"""What onnxruntime's CPU kernels were measured to crawl through: one rule for each slow path.

The rules hold for a graph of any origin: export refuses what they find in its own, the runtime says it of a
neighbour's when it is loaded.
"""

from collections.abc import Callable, Iterator

from sardonyx.runtime.onnx_outline import Node, Outline

BLOCKED = "MatMulNBits"
WHOLE = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul")
"""Operators that find one scale for all tokens of a pass."""


def slow_paths(outline: Outline) -> Iterator[str]:
    """One line for each kind of node that is known to crawl, with how many there are and the cure."""
    makers = {output: node for node in outline.nodes for output in node.outputs}
    rules: dict[str, Callable[[Node], bool]] = {
        "accuracy_level is not set: half the speed at 4 bits, a fiftieth at 2 and 8; set it to 4": _imprecise,
        "float zero points: a fiftieth of the speed; round them": lambda node: _float_zeros(node, outline),
        "g_idx: a fiftieth of the speed; reorder the rows of the weight before": _reordered,
        "int8 activations: a tenth of the speed; use uint8 around 128": lambda node: _signed(
            node, outline, makers.get(node.input(0))
        ),
    }
    for what, is_slow in rules.items():
        if slow := [node for node in outline.nodes if is_slow(node)]:
            yield f"{len(slow)} x {slow[0].kind} with {what}"


def shared_scales(outline: Outline) -> Iterator[str]:
    """One line for each kind of node that quantizes all tokens with one scale."""
    for kind in WHOLE:
        if count := sum(node.kind == kind for node in outline.nodes):
            yield f"{count} x {kind}: one scale for all tokens; a loud one drowns the others"


def _imprecise(node: Node) -> bool:
    return node.kind == BLOCKED and node.attributes.get("accuracy_level", 0) in (0, 1)


def _float_zeros(node: Node, outline: Outline) -> bool:
    return node.kind == BLOCKED and outline.types.get(node.input(3), "uint8") != "uint8"


def _reordered(node: Node) -> bool:
    return node.kind == BLOCKED and bool(node.input(4))


def _signed(node: Node, outline: Outline, maker: Node | None) -> bool:
    """Activations of the integer products are int8, as far as what made them tells."""
    if node.kind not in ("MatMulInteger", "MatMulIntegerToFloat"):
        return False
    zero_point = maker.input(2) if maker is not None and maker.kind == "QuantizeLinear" else ""
    return "int8" in (outline.types.get(node.input(0)), outline.types.get(zero_point))
