"""Parts of networks: each a frozen value that knows its weights and writes itself into a graph."""

from typing import Protocol

from sardonyx.models.graph import Graph, Value


class Part(Protocol):
    """Anything that turns a value into a value of the same shape; `at` is its name in the checkpoint."""

    def emit(self, g: Graph[Value], x: Value, at: str) -> Value: ...
