"""What a graph consists of, and whether the processor has to crawl through any of it.

It reads nodes, names and places of tensors, never a weight. Slow paths are known by what onnxruntime's CPU
kernels were measured to do with them, one rule each; they hold for a graph of any origin.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import onnx_ir as ir

from sardonyx.export.certificate import Structure
from sardonyx.runtime.manifest import MODEL_NAME, Manifest

BLOCKED = "MatMulNBits"
QUANTIZED = (BLOCKED, "MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeMatMul")
"""Operators that multiply by quantized weights."""

CLASSES = {
    "embedding": ("*embed_tokens*",),
    "head": ("*lm_head*",),
    "norms": ("*norm.weight",),
    "rotary": ("rotary*", "*cos_cache*", "*sin_cache*"),
    "attention": ("*attn.*", "*attention.*"),
    "mlp": ("*mlp.*", "*experts.*"),
    "other": ("*",),
}
"""Patterns of tensor names; the first that matches decides."""


def structure(folder: Path, manifest: Manifest) -> Structure:
    """Read an artifact's graph."""
    graph = ir.load(folder / MODEL_NAME).graph
    head = _head(graph)
    return Structure(
        ops=dict(sorted(Counter(node.op_type for node in graph).items())),
        bytes=_bytes(graph),
        head=head,
        minimum_onnxruntime=manifest.minimum_onnxruntime,
        faults=[*slow_paths(graph), *_broken_promises(graph, manifest, head)],
        warnings=list(_warnings(graph)),
    )


def slow_paths(graph: ir.Graph) -> Iterator[str]:
    """One line for each kind of node that is known to crawl, with how many there are and the cure."""
    rules: dict[str, Callable[[ir.Node], bool]] = {
        "accuracy_level is not set: half the speed at 4 bits, a fiftieth at 2 and 8; set it to 4": _imprecise,
        "float zero points: a fiftieth of the speed; round them": _float_zero_points,
        "g_idx: a fiftieth of the speed; reorder the rows of the weight before": _reordered,
        "int8 activations: a tenth of the speed; use uint8 around 128": _signed_activations,
    }
    for what, is_slow in rules.items():
        if slow := [node for node in graph if is_slow(node)]:
            yield f"{len(slow)} x {slow[0].op_type} with {what}"


def _imprecise(node: ir.Node) -> bool:
    level = node.attributes.get("accuracy_level")
    return node.op_type == BLOCKED and (level is None or level.as_int() in (0, 1))


def _float_zero_points(node: ir.Node) -> bool:
    zero_points = _input(node, 3)
    return node.op_type == BLOCKED and zero_points is not None and zero_points.dtype != ir.DataType.UINT8


def _reordered(node: ir.Node) -> bool:
    return node.op_type == BLOCKED and _input(node, 4) is not None


def _signed_activations(node: ir.Node) -> bool:
    """Activations of the integer products are int8, as far as what made them tells."""
    if node.op_type not in ("MatMulInteger", "MatMulIntegerToFloat"):
        return False
    activations = _input(node, 0)
    maker = activations.producer() if activations is not None else None
    zero_point = _input(maker, 2) if maker is not None and maker.op_type == "QuantizeLinear" else None
    declared = (activations, zero_point)
    return any(value is not None and value.dtype == ir.DataType.INT8 for value in declared)


def _warnings(graph: ir.Graph) -> Iterator[str]:
    if count := sum(node.op_type == "DynamicQuantizeMatMul" for node in graph):
        yield f"{count} x DynamicQuantizeMatMul: one scale for all tokens; a loud one drowns the others"


def _broken_promises(graph: ir.Graph, manifest: Manifest, head: str) -> Iterator[str]:
    """Where the graph is not what the manifest says of it."""
    layers = sum(state.kind != "recurrent" for state in manifest.states) / 2
    attentions = sum(node.op_type == "GroupQueryAttention" for node in graph)
    if manifest.target == "cpu" and attentions != layers:
        yield f"{layers:g} layers keep keys and values, but {attentions} nodes are GroupQueryAttention"
    quantized = {name.removesuffix(".weight") for name, kind in manifest.weights.items() if kind != "float32"}
    floats = [n for n in graph if n.op_type in ("MatMul", "Gemm") and quantized & set(_multiplied(n))]
    if floats:
        yield f"{len(floats)} weights that the recipe quantizes are multiplied as float32"
    if quantized and head not in QUANTIZED:
        yield f"the head is {head}, not quantized"


def _multiplied(node: ir.Node) -> Iterator[str]:
    """Names of the weights that a node multiplies by: several if they are stacked in one tensor."""
    tensor = _input(node, 1)
    name = (tensor.name if tensor is not None else None) or ""
    parent, dot, stems = name.partition(".weight")[0].rpartition(".")
    return (f"{parent}{dot}{stem}".lstrip(".") for stem in stems.split("+"))


def _head(graph: ir.Graph) -> str:
    """The operator that makes the logits, behind scaling and adding."""
    value: ir.Value | None = next(output for output in graph.outputs if output.name == "logits")
    while value is not None and (node := value.producer()) is not None:
        if node.op_type not in ("Mul", "Add", "Cast", "Reshape", "Tanh", "Div"):
            return node.op_type
        value = _input(node, 0)
    return "none"


def _bytes(graph: ir.Graph) -> dict[str, int]:
    """Bytes of stored tensors by class. What lies in one place is counted once, where it is first named."""
    sizes: Counter[str] = Counter(dict.fromkeys(CLASSES, 0))
    places = set()
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        place = tensor.offset if isinstance(tensor, ir.ExternalTensor) else name
        if place not in places:
            places.add(place)
            sizes[_class(name)] += tensor.nbytes
    return dict(sizes)


def _class(name: str) -> str:
    return next(kind for kind, patterns in CLASSES.items() if any(fnmatchcase(name, p) for p in patterns))


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None
