"""Artifacts as other programs want to find them: one layout per file, each a `write(model: Model)`.

The graph becomes one that takes an attention mask, and the files around it those of the other program. What
was measured is the artifact that this is made of; that both say the same is checked when it is written.
"""

import importlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sardonyx.export.certificate import Check, at_most, demand
from sardonyx.export.divergence import compare
from sardonyx.export.texts import own_texts
from sardonyx.models import describe
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.manifest import CERTIFICATE_NAME, MODEL_NAME, Manifest, read_manifest
from sardonyx.runtime.onnx_outline import read_outline
from sardonyx.runtime.strategies import Feed

LAYOUTS = {"genai": "genai", "transformers.js": "transformers_js"}
"""Names, as they are asked for, and their files."""

SAME_KL = 1e-5
"""Nats per token: the same kernels on the same weights, told in other words where rows end."""


@dataclass(frozen=True)
class Model:
    """An artifact, the place to write to, and the config that the checkpoint came with."""

    artifact: Path
    folder: Path
    manifest: Manifest
    config: Mapping[str, Any]
    hidden: int
    heads: int


def check_layout(layout: str | None) -> None:
    """Raises RequestError for a layout that is not known."""
    if layout is not None and layout not in LAYOUTS:
        raise RequestError(f"layout {layout!r} is not known; known: {', '.join(LAYOUTS)}")


def lay_out(artifact: Path, folder: Path, layout: str, config: Mapping[str, Any]) -> None:
    """Write an artifact to an empty folder in another program's layout. Raises RequestError for a model that
    it cannot hold, VerificationFailed when what was written does not say the same.
    """
    heads = _heads(artifact)
    model = Model(artifact, folder, read_manifest(artifact), config, describe(config).hidden, heads)
    if odd := [state.input for state in model.manifest.states if state.kind != "kv"]:
        raise RequestError(f"layout {layout} holds keys and values; {odd[0]} is a state of another kind")
    importlib.import_module(f"{__name__}.{LAYOUTS[layout]}").write(model)
    if (artifact / CERTIFICATE_NAME).is_file():
        shutil.copyfile(artifact / CERTIFICATE_NAME, folder / CERTIFICATE_NAME)
    demand(f"{model.manifest.name} in the layout {layout}", list(_same(artifact, folder)))


def _heads(artifact: Path) -> int:
    """Of queries, as the first attention says."""
    nodes = read_outline(artifact / MODEL_NAME).nodes
    return next((int(node.attributes["num_heads"]) for node in nodes if "num_heads" in node.attributes), 0)


def _same(artifact: Path, folder: Path) -> list[Check]:
    """Both fed a window of each kind of text, in one piece and then token by token."""
    ours, theirs = LLM.load(artifact), LLM.load(folder)
    divergences = []
    for windows in own_texts(ours).windows.values():
        window, start = windows[0], len(windows[0]) - 4
        feeds = [Feed([window[:start]], wanted=start), *(Feed([[token]]) for token in window[start:])]
        expected, found = (
            np.concatenate([logits for (logits,) in llm.logits(*feeds)]) for llm in (ours, theirs)
        )
        divergences.append(compare(expected, found, window).kl.mean())
    return list(at_most("mean KL from the artifact", float(np.mean(divergences)), SAME_KL))
