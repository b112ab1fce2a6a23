"""onnxruntime-genai's layout: `genai_config.json` says which graph, and what to know of it."""

from pathlib import Path
from typing import Any

from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.huggingface.json_file import read_json
from sardonyx.runtime.neighbours.folder import Laid

SETTINGS = "genai_config.json"

OF_BEAMS = ("early_stopping", "length_penalty", "diversity_penalty")
OF_THE_PROGRAM = ("past_present_share_buffer", "chunk_size", "random_seed")
"""Settings of its search that do not change what is said, or only with several beams."""


def graphs(folder: Path) -> dict[str, Path]:
    """The one decoder that the settings name."""
    settings = folder / SETTINGS
    if not settings.is_file():
        return {}
    name = _decoder(settings, read_json(settings)).get("filename")
    if not isinstance(name, str) or Path(name).name != name:
        raise ArtifactError(f"{settings}: model.decoder.filename should be the name of a file, not {name!r}")
    return {"": folder / name}


def read(folder: Path, graph: Path) -> Laid:
    """Translates names into Hugging Face's. Raises SourceError or ArtifactError naming the setting."""
    settings = folder / SETTINGS
    content = read_json(settings)
    model, decoder = content["model"], _decoder(settings, content)
    config = {
        "architectures": [model.get("type")],
        "max_position_embeddings": model.get("context_length"),
        "vocab_size": model.get("vocab_size"),
        "eos_token_id": model.get("eos_token_id"),
        "num_attention_heads": decoder.get("num_attention_heads"),
        "num_key_value_heads": decoder.get("num_key_value_heads"),
        "head_dim": decoder.get("head_size"),
    }
    search = content.get("search", {})
    dropped = OF_THE_PROGRAM if search.get("num_beams", 1) > 1 else (*OF_THE_PROGRAM, *OF_BEAMS)
    generation = {name: value for name, value in search.items() if name not in dropped}
    return Laid("onnxruntime-genai", folder, graph, "", settings, config, generation)


def _decoder(settings: Path, content: dict[str, Any]) -> dict[str, Any]:
    model = content.get("model")
    decoder = model.get("decoder") if isinstance(model, dict) else None
    if not isinstance(decoder, dict):
        raise ArtifactError(f"{settings}: describes no model.decoder; this runtime runs decoders of text")
    return decoder
