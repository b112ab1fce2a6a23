"""transformers.js' layout, and onnx-community's: `onnx/model_q4.onnx`, `.onnx_data`, `.onnx_data_1`, ...

Each variant is a graph of its own, named after the type of its weights (`utils/dtypes.js` of
transformers.js).
"""

from pathlib import Path

from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.huggingface.json_file import read_json, read_json_if_any
from sardonyx.runtime.neighbours.folder import Laid

STEM = "model"
LEGACY = "decoder_model_merged"
"""What graphs were called that are two in one: for beginnings, and for what follows."""

SUFFIXES = {
    "fp32": "",
    "q8": "_quantized",
    **{
        name: f"_{name}"
        for name in ("fp16", "int8", "uint8", "q4", "q4f16", "bnb4", "q2", "q2f16", "q1", "q1f16")
    },
}
"""What is appended to a file's name, by dtype."""


def graphs(folder: Path) -> dict[str, Path]:
    """By dtype, of the decoders of text. Raises ArtifactError for a folder with graphs of other kinds
    alone."""
    stems = (STEM,) if list((folder / "onnx").glob("encoder_model*.onnx")) else (LEGACY, STEM)
    present = {
        dtype: path
        for stem in stems
        for dtype, suffix in SUFFIXES.items()
        if (path := folder / "onnx" / f"{stem}{suffix}.onnx").is_file()
    }
    others = sorted(path.name for path in (folder / "onnx").glob("*.onnx"))
    if others and not present and (folder / "config.json").is_file():
        raise ArtifactError(
            f"{folder / 'onnx'}: has {', '.join(others[:3])}, but no {STEM}.onnx or {STEM}_DTYPE.onnx; "
            "only decoders of text in one graph can be run"
        )
    return present


def read(folder: Path, graph: Path) -> Laid:
    """Raises SourceError when the configuration cannot be read."""
    settings = folder / "config.json"
    stems = {stem + suffix: dtype for stem in (STEM, LEGACY) for dtype, suffix in SUFFIXES.items()}
    dtype = stems[graph.stem]
    generation = read_json_if_any(folder / "generation_config.json")
    return Laid("transformers.js", folder, graph, dtype, settings, read_json(settings), generation)
