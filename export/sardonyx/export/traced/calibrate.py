"""What a traced graph multiplies by its weights, seen while it reads the calibration text.

The graph is run as it was traced, with the activations as further outputs. It knows no quantizer: it is told
of which products the moments are wanted.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from sardonyx.export.calibration import MomentSum
from sardonyx.export.traced.products import Product
from sardonyx.export.weights import Moment
from sardonyx.models.graph import Weight
from sardonyx.runtime.manifest import State

HELD = 1 << 29
"""Bytes of moments that are summed at a time; with more, the text is read again."""

Tokens = Sequence[int]


def moments(
    graph: Path, products: Sequence[Product], states: Sequence[State], windows: Sequence[Tokens]
) -> Mapping[Weight, Moment]:
    """Mean of `x x^T` for each product, over all windows read from their beginnings."""
    found: dict[Weight, Moment] = {}
    for group in _groups(products):
        sums = {product.x.name: MomentSum() for product in group}
        session = _session(graph, list(sums))
        for window in windows:
            values = session.run(list(sums), _fed(session, states, window))
            for total, x in zip(sums.values(), values, strict=True):
                total.add(x.reshape(-1, x.shape[-1]))
        found |= {product.weight: sums[product.x.name].mean() for product in group}
    return found


def _groups(products: Sequence[Product]) -> Iterator[list[Product]]:
    """As many products as their moments may be held of."""
    group: list[Product] = []
    held: dict[str | None, int] = {}
    for product in products:
        held[product.x.name] = 4 * product.weight.shape[1] ** 2
        if group and sum(held.values()) > HELD:
            yield group
            group, held = [], {product.x.name: held[product.x.name]}
        group.append(product)
    if group:
        yield group


def _session(graph: Path, names: Sequence[str | None]) -> Any:
    """The graph with these values for further outputs. It is written beside itself for as long as it is read,
    so that weights outside of it stay where they are.
    """
    model = ir.load(graph)
    values = {value.name: value for node in model.graph for value in node.outputs}
    model.graph.outputs.extend(values[name] for name in names if not values[name].is_graph_output())
    for value in model.graph.outputs:
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    path = graph.with_name(f"{graph.stem}.seen.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        ir.save(model, path)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    finally:
        path.unlink(missing_ok=True)


def _fed(session: Any, states: Sequence[State], window: Tokens) -> dict[str, Any]:
    """A window from its beginning: nothing is past."""
    count = len(window)
    given: dict[str, Any] = {
        "input_ids": np.array([window]),
        "attention_mask": np.ones((1, count)),
        "position_ids": np.arange(count)[None],
        "num_logits_to_keep": np.array(1),
    }
    given |= {s.input: np.zeros((1, s.shape[0], 0, s.shape[1]), s.dtype) for s in states}
    kinds = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
    return {
        port.name: given[port.name].astype(kinds.get(port.type, given[port.name].dtype))
        for port in session.get_inputs()
    }
