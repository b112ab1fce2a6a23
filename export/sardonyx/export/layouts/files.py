"""Files that other programs want beside a graph, in Hugging Face's terms."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import onnx_ir as ir

from sardonyx.export.layouts.masked import masked
from sardonyx.runtime.manifest import CHAT_TEMPLATE_NAME, MODEL_NAME, TOKENIZER_NAME, WEIGHTS_NAME, Manifest


def write_graph(artifact: Path, graph: Path, weights: str) -> None:
    """The graph that takes a mask, and the weights beside it under that name: the same file, not a copy,
    where the file system can. Raises OSError.
    """
    model = masked(ir.load(artifact / MODEL_NAME), weights)
    try:
        os.link(artifact / WEIGHTS_NAME, graph.parent / weights)
    except OSError:  # across file systems, or where there are no links
        shutil.copyfile(artifact / WEIGHTS_NAME, graph.parent / weights)
    ir.save(model, graph)


def write_tokenizer(artifact: Path, folder: Path, manifest: Manifest, kind: str) -> None:
    """tokenizer.json and what stands beside it; `kind` is the class that reads it."""
    shutil.copyfile(artifact / TOKENIZER_NAME, folder / TOKENIZER_NAME)
    template = artifact / CHAT_TEMPLATE_NAME
    settings: dict[str, Any] = {
        "tokenizer_class": kind,
        "model_max_length": manifest.context_length,
        "clean_up_tokenization_spaces": False,
        **manifest.tokens.texts,
    }
    if template.is_file():
        shutil.copyfile(template, folder / CHAT_TEMPLATE_NAME)
        settings["chat_template"] = template.read_text("utf-8")
    write_json(folder / "tokenizer_config.json", settings)


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")
