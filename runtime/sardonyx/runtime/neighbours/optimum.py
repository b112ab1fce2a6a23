"""optimum's layout: `model.onnx` (and `model.onnx_data`) beside the files of a Hugging Face model."""

from pathlib import Path

from sardonyx.runtime.huggingface.json_file import read_json, read_json_if_any
from sardonyx.runtime.neighbours.folder import Laid

WHOLE = "model.onnx"

LEGACY = ("decoder_model_merged", "decoder_with_past_model", "decoder_model")
"""What it once wrote of one model, the best first: the last keeps no past, and the second starts slowly."""


def graphs(folder: Path) -> dict[str, Path]:
    """By what their names say behind `model_`: what was optimized or quantized in a second step."""
    if not (folder / "config.json").is_file() or (folder / "genai_config.json").is_file():
        return {}
    found = {_variant(path): path for path in sorted(folder.glob("*.onnx"))}
    for whole in LEGACY:
        if whole in found:
            return {name: path for name, path in found.items() if name not in LEGACY or name == whole}
    return found


def read(folder: Path, graph: Path) -> Laid:
    """Raises SourceError when the configuration cannot be read."""
    settings = folder / "config.json"
    variant = "" if graph.name == WHOLE else _variant(graph)
    generation = read_json_if_any(folder / "generation_config.json")
    return Laid("optimum", folder, graph, variant, settings, read_json(settings), generation)


def _variant(path: Path) -> str:
    return "model" if path.name == WHOLE else path.stem.removeprefix("model_")
