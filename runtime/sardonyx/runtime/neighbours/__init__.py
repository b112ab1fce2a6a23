"""Folders that other programs wrote, taken as they are: nothing is converted.

One module for each program's layout, with `graphs(folder)`: the decoder graphs in a folder of that layout, by
name, none if it is not one; and `read(folder, graph)`: what the layout says of a graph. Names are variants
(`q4`, `fp16`) where a layout has several. Inputs, outputs and states are found out from the graph itself.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from os.path import isdir
from pathlib import Path
from types import ModuleType

from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.manifest import MANIFEST_NAME, MODEL_NAME
from sardonyx.runtime.neighbours.folder import Neighbour, described


def locate(name: str) -> Path | None:
    """The graph that a word means, if that is in a neighbour's folder: the folder, `FOLDER:VARIANT`, or the
    .onnx file itself. Raises ArtifactError when it is not clear which graph is meant, naming those there are.
    """
    folder, colon, variant = name.rpartition(":")
    for place, wanted in ((Path(name), ""), (Path(folder), variant)) if colon else ((Path(name), ""),):
        for _, graphs in _layouts(place):
            return _chosen(place, graphs, wanted)
        for _, _, graphs in _layouts_around(place):
            if place in graphs.values():
                return place
    return None


def read(graph: Path) -> Neighbour | None:
    """What is known of a graph that `locate` found, or of a folder with one; None if no layout is known for
    it. Raises SardonyxError naming what is missing or not understood.
    """
    found = locate(str(graph))
    if found is None:
        return None
    layout, folder, _ = next(place for place in _layouts_around(found) if found in place[2].values())
    return described(layout.read(folder, found))


def graph_of(folder: Path) -> Path:
    """The graph of an artifact, or of a neighbour's folder. Raises ArtifactError as `locate` does."""
    return locate(str(folder)) or folder / MODEL_NAME


def _layouts(folder: Path) -> Iterator[tuple[ModuleType, dict[str, Path]]]:
    """The layouts that a folder is of, and its graphs."""
    if not isdir(folder) or (folder / MANIFEST_NAME).is_file():  # isdir: a prompt may be too long for a path
        return
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        if hasattr(module, "graphs") and (graphs := module.graphs(folder)):
            yield module, graphs


def _layouts_around(graph: Path) -> Iterator[tuple[ModuleType, Path, dict[str, Path]]]:
    """The layouts of the folders that a file is in."""
    if graph.suffix == ".onnx":
        for folder in graph.parents[:2]:
            for module, graphs in _layouts(folder):
                yield module, folder, graphs


def _chosen(folder: Path, graphs: dict[str, Path], wanted: str) -> Path:
    if not wanted and len(graphs) == 1:
        return next(iter(graphs.values()))
    if wanted in graphs:
        return graphs[wanted]
    there = ", ".join(graphs)
    if wanted:
        raise ArtifactError(f"{folder}: has no variant {wanted}; it has {there}")
    first = next(iter(graphs))
    raise ArtifactError(f"{folder}: which variant? it has {there}; say for example {folder}:{first}")
