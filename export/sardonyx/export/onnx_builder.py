"""Nodes, inputs, outputs and initializers of one ONNX graph under construction.

What quantizers and lowerings build with. It knows names and places, not what any of it means.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sardonyx.export.weight_file import Chunks, WeightFile
from sardonyx.models.graph import StateSpec
from sardonyx.runtime.errors import SourceError
from sardonyx.runtime.manifest import DType

MICROSOFT = "com.microsoft"
OPSETS = {"": 23, MICROSOFT: 1}
SCATTERING = 24
"""The opset that has TensorScatter, by which 8-bit states are written."""

IR_VERSION = 11

Dims = Sequence[int | str]
Made = TypeVar("Made")
Scales = Mapping[str, NDArray[Any]]
"""Of states in 8 bits, by name: what a step of each channel is worth, `[1, heads, 1, width]`."""


@dataclass(frozen=True)
class Dialect:
    """The type of what is computed with, the version of ONNX's operators, and whether rows of tables in
    blocks are widened in plain operators, for want of the one that does it.
    """

    float: ir.DataType = ir.DataType.FLOAT
    opset: int = OPSETS[""]
    plain_rows: bool = False

    @property
    def dtype(self) -> DType:
        """The type by the manifest's name."""
        return "float32" if self.float == ir.DataType.FLOAT else "float16"


FLOAT32 = Dialect()


class OnnxBuilder:
    """Appends to an onnx-ir graph and a weight file. `context` is how many positions to make room for.

    Without `scales` states are floats as all else.
    """

    def __init__(
        self, weights: WeightFile, context: int, scales: Scales | None = None, dialect: Dialect = FLOAT32
    ) -> None:
        self.context = context
        self.float = dialect.float
        """The type of activations, and of what they are multiplied by as floats."""
        self.states: list[tuple[StateSpec, str, str]] = []
        self._weights = weights
        self._scales = scales
        self._opset = SCATTERING if scales else dialect.opset
        self.plain_rows = dialect.plain_rows
        self._nodes: list[ir.Node] = []
        self._made = 0
        self._inputs: dict[str, ir.Value] = {}
        self._outputs: dict[str, ir.Value] = {}
        self._initializers: dict[str, ir.Value] = {}
        self._memo: dict[Any, Any] = {}
        self._given = (0, 0)
        self._postponed: list[Callable[[], None]] = []
        self._postponing = False

    def op(self, kind: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """Append a node of one output."""
        return self.ops(kind, *inputs, count=1, domain=domain, **attributes)[0]

    def ops(
        self, kind: str, *inputs: ir.Value | None, count: int, domain: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """Append a node of `count` outputs. Inputs that are not there are left off at the end, and empty
        before: to OpenVINO an empty input is a value of unknown shape.
        """
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        name = f"{kind}_{self._made}"
        self._made += 1
        outputs = [ir.Value(name=f"{name}.{i}" if i else name) for i in range(count)]
        self._nodes.append(ir.node(kind, inputs, attributes, domain=domain, outputs=outputs, name=name))
        return outputs

    def choose(
        self,
        condition: ir.Value,
        one: Callable[[], Sequence[ir.Value]],
        other: Callable[[], Sequence[ir.Value]],
        dtypes: Sequence[ir.DataType],
    ) -> Sequence[ir.Value]:
        """What the nodes of `one` give where the condition holds when the graph runs, else those of `other`.

        Neither may ask for anything `once` that was not made before.
        """
        branches = [self._branch(make, dtypes) for make in (one, other)]
        then, otherwise = branches
        return self.ops("If", condition, count=len(dtypes), then_branch=then, else_branch=otherwise)

    def _branch(self, make: Callable[[], Sequence[ir.Value]], dtypes: Sequence[ir.DataType]) -> ir.Graph:
        around, self._nodes = self._nodes, []
        try:
            outputs, nodes = make(), self._nodes
        finally:
            self._nodes = around
        for value, dtype in zip(outputs, dtypes, strict=True):
            value.type = ir.TensorType(dtype)
        return ir.Graph([], outputs, nodes=nodes, name=f"branch_{self._made}")

    def once(self, key: Any, make: Callable[[], Made]) -> Made:
        """What `make` builds, built only the first time this key is asked for."""
        if key not in self._memo:
            self._memo[key] = make()
        made: Made = self._memo[key]
        return made

    def made(self, key: Any) -> bool:
        """Whether `once` has built this key."""
        return key in self._memo

    def input(self, name: str, dtype: ir.DataType, shape: Dims) -> ir.Value:
        """The graph input of that name, declared when first asked for."""
        return self.once(
            ("input", name), lambda: self._inputs.setdefault(name, _typed(ir.Value(name=name), dtype, shape))
        )

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Dims) -> None:
        """Make a value an output of the graph."""
        value.name = name
        self._outputs[name] = _typed(value, dtype, shape)

    def state(self, spec: StateSpec, dtype: ir.DataType) -> tuple[ir.Value, str]:
        """Declare a state: its past as a graph input, and the name that its present must be put out under."""
        past = f"past_key_values.{spec.name}"
        self.states.append((spec, past, f"present.{spec.name}"))
        each = (spec.shape[0], "capacity", spec.shape[1]) if spec.kind == "kv" else spec.shape
        return self.input(past, dtype, ["rows", *each]), f"present.{spec.name}"

    def state_scale(self, name: str) -> ir.Value | None:
        """What one step of a state's numbers is worth, `[1, heads, 1, width]`; None if they are floats."""
        return self.constant(self._scales[name]) if self._scales else None

    def stored(
        self, name: str, dtype: ir.DataType, shape: Sequence[int], make: Callable[[], Chunks]
    ) -> ir.Value:
        """An initializer in the weight file, written once however often it is asked for."""
        if name not in self._initializers:
            tensor = self._weights.place(name, dtype, shape)
            self._initializer(tensor)
            write = partial(self._fill, tensor, make)
            if self._postponing:
                self._postponed.append(write)
            else:
                write()
        return self._initializers[name]

    @contextmanager
    def postponing(self) -> Iterator[None]:
        """Within, stored tensors get their places only: `write_postponed` asks for their bytes."""
        self._postponing = True
        yield
        self._postponing = False

    def _fill(self, tensor: ir.ExternalTensor, make: Callable[[], Chunks]) -> None:
        chunks = make()
        if tensor.dtype == ir.DataType.FLOAT16:
            chunks = (_halved(str(tensor.name), chunk) for chunk in chunks)
        self._weights.fill(tensor, chunks)

    def write_postponed(self) -> None:
        """Write what was postponed, in the order in which it was stored."""
        for write in self._postponed:
            write()
        self._postponed.clear()

    def is_stored(self, name: str) -> bool:
        """Whether an initializer of that name is in the weight file already."""
        return name in self._initializers

    def alias(self, value: ir.Value, name: str, shape: Sequence[int]) -> ir.Value:
        """A stored initializer's bytes under another shape; nothing is written."""
        if name not in self._initializers:
            tensor = value.const_value
            assert isinstance(tensor, ir.ExternalTensor)
            self._initializer(self._weights.alias(name, tensor, shape))
        return self._initializers[name]

    def constant(self, array: NDArray[Any]) -> ir.Value:
        """A small constant inside the graph file; equal constants are one."""
        key = f"constant_{array.dtype}_{'x'.join(map(str, array.shape))}_{array.tobytes().hex()}"
        if key not in self._initializers:
            self._initializer(
                ir.tensor(
                    array, name=f"constant_{sum(n.startswith('constant_') for n in self._initializers)}"
                ),
                key,
            )
        return self._initializers[key]

    def integers(self, *numbers: int) -> ir.Value:
        """A constant of dimensions, axes or places, `[numbers]`."""
        return self.constant(np.array(numbers, np.int64))

    def reshaped(self, x: ir.Value, *dims: int) -> ir.Value:
        """0 keeps a dimension, -1 is what is left."""
        return self.op("Reshape", x, self.integers(*dims))

    def number(self, content: float | NDArray[Any]) -> ir.Value:
        """A small constant of the type that is computed with."""
        return self.constant(np.array(content, self.float.numpy()))

    def taken(self) -> tuple[list[ir.Node], list[ir.Value]]:
        """The nodes and initializers that were made since this was asked last, for another graph."""
        before, self._given = self._given, (len(self._nodes), len(self._initializers))
        return self._nodes[before[0] :], list(self._initializers.values())[before[1] :]

    def model(self, producer: str, version: str) -> ir.Model:
        """The finished model."""
        graph = ir.Graph(
            list(self._inputs.values()),
            list(self._outputs.values()),
            nodes=self._nodes,
            initializers=list(self._initializers.values()),
            opset_imports=OPSETS | {"": self._opset},
            name="decoder",
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name=producer, producer_version=version)

    def _initializer(self, tensor: ir.TensorProtocol, key: str | None = None) -> None:
        value = ir.Value(name=tensor.name, const_value=tensor)
        self._initializers[key or str(tensor.name)] = _typed(value, tensor.dtype, tensor.shape.numpy())


def _typed(value: ir.Value, dtype: ir.DataType, shape: Dims | ir.Shape) -> ir.Value:
    value.type = ir.TensorType(dtype)
    value.shape = ir.Shape(shape)
    return value


def _halved(name: str, chunk: NDArray[Any]) -> NDArray[Any]:
    """Of floats: float16. Raises SourceError for a number that is too large for it."""
    if chunk.dtype != np.float32:
        return chunk
    with np.errstate(over="ignore"):
        halves = chunk.astype(np.float16)
    if not np.isfinite(halves).all():
        raise SourceError(f"{name}: holds {np.abs(chunk).max():g}, too large for float16; take --target cpu")
    return halves
