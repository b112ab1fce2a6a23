"""What a graph consists of, and whether the processor has to crawl through any of it.

It reads nodes, names and places of tensors, never a weight. Which paths are slow, the runtime knows.
"""

from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import onnx_ir as ir

from sardonyx.export.certificate import Structure
from sardonyx.runtime.manifest import PORTABLE, Manifest
from sardonyx.runtime.neighbours import graph_of
from sardonyx.runtime.onnx_outline import read_outline
from sardonyx.runtime.slow_paths import shared_scales, slow_paths

QUANTIZED = ("MatMulNBits", "MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeMatMul")
"""Operators that multiply by quantized weights."""

FLOATS = ("float32", "float16", "bfloat16")
"""Kinds of weights that are multiplied as floats."""

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
    """Read the graph of an artifact, or of a neighbour's folder."""
    path = graph_of(folder)
    graph, outline = ir.load(path).graph, read_outline(path)
    head = made.op_type if (made := head_of(graph)) is not None else "none"
    return Structure(
        ops=dict(sorted(Counter(node.op_type for node in graph.all_nodes()).items())),
        bytes=_bytes(graph),
        head=head,
        minimum_onnxruntime=manifest.minimum_onnxruntime,
        faults=[*slow_paths(outline), *_broken_promises(graph, manifest, head)],
        warnings=list(shared_scales(outline)),
    )


def _broken_promises(graph: ir.Graph, manifest: Manifest, head: str) -> Iterator[str]:
    """Where the graph is not what the manifest says of it."""
    layers = sum(state.kind == "kv" for state in manifest.states) / 2
    attentions = sum(_attends(node) for node in graph)
    if manifest.target != PORTABLE and attentions != layers:
        yield f"{layers:g} layers keep keys and values, but {attentions} nodes are GroupQueryAttention"
    quantized = {
        name.removesuffix(".weight") for name, kind in manifest.weights.items() if kind not in FLOATS
    }
    floats = [n for n in graph if n.op_type in ("MatMul", "Gemm") and quantized & set(_multiplied(n))]
    if floats:
        yield f"{len(floats)} weights that the recipe quantizes are multiplied as float32"
    if quantized and head not in QUANTIZED:
        yield f"the head is {head}, not quantized"


def _attends(node: ir.Node) -> bool:
    """Itself, or in each of its branches: one for one token, one for several."""
    branches = [attr.as_graph() for attr in node.attributes.values() if attr.type == ir.AttributeType.GRAPH]
    return node.op_type == "GroupQueryAttention" or (
        bool(branches) and all(any(_attends(inner) for inner in branch) for branch in branches)
    )


def _multiplied(node: ir.Node) -> Iterator[str]:
    """Names of the weights that a node multiplies by: several if they are stacked in one tensor."""
    tensor = _input(node, 1)
    name = (tensor.name if tensor is not None else None) or ""
    parent, dot, stems = name.partition(".weight")[0].rpartition(".")
    return (f"{parent}{dot}{stem}".lstrip(".") for stem in stems.split("+"))


def head_of(graph: ir.Graph) -> ir.Node | None:
    """The node that makes the logits, behind scaling and adding."""
    value: ir.Value | None = next(output for output in graph.outputs if output.name == "logits")
    while value is not None and (node := value.producer()) is not None:
        if node.op_type not in ("Mul", "Add", "Cast", "Identity", "Reshape", "Tanh", "Div"):
            return node
        value = next((v for v in node.inputs if v is not None and v.const_value is None), None)
    return None


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
