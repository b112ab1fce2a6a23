"""A traced graph under a recipe: products by weights become what quantizers write, the rest stays as it is.

Weights move into the weight file; small constants stay in the graph. It knows operators and quantizers, not
where the graph came from.
"""

import numpy as np
import onnx_ir as ir

from sardonyx.export.onnx_builder import MICROSOFT, OPSETS, OnnxBuilder
from sardonyx.export.quantizers.none import Float
from sardonyx.export.recipes import Recipe
from sardonyx.export.traced.products import Product, products
from sardonyx.export.weight_file import WeightFile
from sardonyx.export.weights import Matrix, Measured, OnRead, unmeasured

STORED_BYTES = 1024
"""Constants at least this large go to the weight file."""


def rewrite(
    model: ir.Model, weights: WeightFile, recipe: Recipe, on_read: OnRead, measured: Measured = unmeasured
) -> dict[str, str]:
    """Quantize in place; the quantizer of each weight, by name. Shows `on_read` what is read, and knows from
    `measured` what is multiplied.
    """
    graph = model.graph
    builder = OnnxBuilder(weights, context=0)
    quantizer_of = {}
    for product in products(graph):
        quantizer = recipe.quantizer(product.weight.name)
        quantizer_of[product.weight.name] = str(quantizer)
        if isinstance(quantizer, Float):
            on_read(product.tensor.array, product.weight.name)
            continue
        matrix = Matrix(((product.weight, product.tensor),), on_read, measured)
        if product.is_table:
            made = quantizer.embed(builder, product.x, matrix)
        else:
            made = quantizer.linear(builder, product.x, matrix, product.bias)
        _put(graph, builder, product, made)
    if set(quantizer_of.values()) != {str(Float())}:
        graph.opset_imports[MICROSOFT] = OPSETS[MICROSOFT]
    _sweep(graph)
    _store(graph, weights)
    model.ir_version = max(model.ir_version, 10)
    return quantizer_of


def _put(graph: ir.Graph, builder: OnnxBuilder, product: Product, made: ir.Value) -> None:
    """What was made, in place of the node."""
    nodes, initializers = builder.taken()
    for value in initializers:
        graph.register_initializer(value)
    graph.insert_before(product.node, nodes)
    (old,) = product.node.outputs
    made.type, made.shape = old.type, old.shape
    name = old.name
    ir.convenience.replace_all_uses_with(old, made, replace_graph_outputs=True)
    graph.remove(product.node, safe=True)
    if made.is_graph_output():
        made.name = name


def _sweep(graph: ir.Graph) -> None:
    """Drop what nothing reads any more: transposes of quantized tables, and weights."""
    for node in reversed(list(graph)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _store(graph: ir.Graph, weights: WeightFile) -> None:
    """Large constants that are not in the weight file yet."""
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < STORED_BYTES or weights.holds(tensor):
            continue
        assert value.name is not None
        shape = [int(size) for size in tensor.shape.numpy()]
        array = np.ascontiguousarray(tensor.numpy())
        value.const_value = weights.append(value.name, tensor.dtype, shape, [array])
