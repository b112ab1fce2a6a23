"""A model folder as Hugging Face lays it out: config.json, .safetensors files, tokenizer files.

Knows which file says what. Tensors already have their canonical names here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sardonyx.export.checkpoint import LazyTensor
from sardonyx.export.checkpoint.huggingface_layouts import SPELLINGS, Spelling
from sardonyx.export.checkpoint.layouts import MisfitError, canonical
from sardonyx.export.checkpoint.safetensors import stored_tensors
from sardonyx.export.checkpoint.stored import StoredTensor
from sardonyx.models.config import ConfigError
from sardonyx.runtime.errors import SourceError
from sardonyx.runtime.huggingface.json_file import read_json, read_json_if_any
from sardonyx.runtime.huggingface.tokenizer_files import TokenizerFiles, read_tokenizer

_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class HuggingFaceCheckpoint:
    """A model folder as a Checkpoint."""

    path: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    files: tuple[Path, ...]
    tensors: Mapping[str, LazyTensor]
    known_as: str | None = None

    @property
    def name(self) -> str:
        return self.known_as or self.path.resolve().name

    @property
    def format(self) -> str:
        return "safetensors"

    def names(self) -> frozenset[str]:
        return frozenset(self.tensors)

    def tensor(self, name: str) -> LazyTensor:
        return self.tensors[name]

    def tokenizer(self) -> TokenizerFiles:
        return read_tokenizer(self.path, self.config, self.generation)


def sniff(path: Path) -> bool:
    """Whether this is a folder with a configuration or weights, or a file of weights: `read` says more."""
    if path.is_file():
        return path.suffix == ".safetensors"
    return any(True for pattern in ("config.json", "*.safetensors", "*.bin") for _ in path.glob(pattern))


def read(path: Path) -> HuggingFaceCheckpoint:
    """Open a model folder; of the weights, only the headers are read. Raises SourceError."""
    if path.is_file():
        raise SourceError(f"{path}: give the folder that holds it, with its config.json and tokenizer.json")
    config = read_json(path / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise SourceError(f"{path / 'config.json'}: says no model_type")
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise SourceError(
            f"{path / 'config.json'}: the weights are already quantized ({method}); "
            "give the original float16, bfloat16 or float32 model"
        )
    tensors = _tensors(path)
    files = tuple(sorted({tensor.path for tensor in tensors.values()}))
    return HuggingFaceCheckpoint(
        path,
        config,
        read_json_if_any(path / "generation_config.json"),
        files,
        _canonical(path, config, tensors),
    )


def _canonical(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]
) -> Mapping[str, LazyTensor]:
    """The tensors under the names that descriptions use, whatever their architecture calls them."""
    spelling = SPELLINGS.get(config["model_type"], Spelling())
    if not any(name.startswith(f"{spelling.base}.") for name in tensors):  # saved without its head
        tensors = {f"{spelling.base}.{name}": tensor for name, tensor in tensors.items()}
    try:
        return canonical(tensors, spelling.layout, config)
    except (ConfigError, MisfitError) as error:
        raise SourceError(f"{path}: {error}") from None


def _tensors(path: Path) -> dict[str, StoredTensor]:
    if (path / _WHOLE).is_file():
        tensors = stored_tensors(path / _WHOLE)
    elif (path / _INDEX).is_file():
        tensors = _sharded(path)
    else:
        raise SourceError(_no_weights(path))
    if not tensors:
        raise SourceError(f"{path / _WHOLE}: holds no tensors")
    return tensors


def _sharded(path: Path) -> dict[str, StoredTensor]:
    """The tensors of all shards that the index names."""
    index = path / _INDEX
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise SourceError(f"{index}: has no weight_map from tensors to files")
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(places.values())):
        if Path(shard).name != shard:
            raise SourceError(f"{index}: names the file {shard!r}, which is not in this folder")
        if not (path / shard).is_file():
            raise SourceError(f"{path / shard}: missing, but {_INDEX} names it; download it")
        for name, tensor in stored_tensors(path / shard).items():
            if name in tensors:
                raise SourceError(f"{path / shard}: tensor {name} is also in {tensors[name].path.name}")
            tensors[name] = tensor
    for name, shard in places.items():
        if name not in tensors or tensors[name].path.name != shard:
            raise SourceError(
                f"{path / shard}: has no {name}, which {_INDEX} puts there; download both again"
            )
    return tensors


def _no_weights(path: Path) -> str:
    others = sorted(
        file.name for pattern in ("*.safetensors", "*.bin", "*.pth") for file in path.glob(pattern)
    )
    if any(name.endswith(".safetensors") for name in others):
        return f"{path}: there is no {_WHOLE} and no {_INDEX}, only {', '.join(others[:3])}"
    if others:
        return (
            f"{path}: the weights are only there as {others[0]}, which may run code when opened; "
            "convert them with transformers: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)"
        )
    return f"{path}: there are no weights ({_WHOLE}, or shards with {_INDEX})"
