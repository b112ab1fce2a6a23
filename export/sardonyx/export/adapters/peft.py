"""Reading the folders that PEFT writes: adapter_config.json and adapter_model.safetensors.

Every field of the configuration is used, or known to change nothing, or refused; every tensor has a place in
the model, or all that have none are listed. A model's own spelling of its tensors is undone as its reader
does it: what is done to rows of a matrix is done to rows of B.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sardonyx.export.adapters import HEAD, TABLE, Adapter, LowRank
from sardonyx.export.checkpoint import Checkpoint, LazyTensor
from sardonyx.export.checkpoint.huggingface_layouts import SPELLINGS, Spelling
from sardonyx.export.checkpoint.layouts import MisfitError, canonical
from sardonyx.export.checkpoint.pieces import transposed
from sardonyx.export.checkpoint.safetensors import stored_tensors
from sardonyx.export.weights import listed
from sardonyx.models.config import ConfigError, flag, integer, number
from sardonyx.runtime.errors import SourceError
from sardonyx.runtime.huggingface.json_file import read_json

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."

USED = {"peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern"} | {
    "fan_in_fan_out",
    "init_lora_weights",
}
DESCRIPTIVE = {
    *("auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "exclude_modules"),
    *("inference_mode", "layers_pattern", "layers_to_transform", "lora_dropout", "megatron_core"),
    *("modules_to_save", "peft_version", "qalora_group_size", "revision", "target_modules", "task_type"),
    *("corda_config", "eva_config", "loftq_config", "runtime_config"),
}
"""Fields that say how it was trained, or what the tensors' names say again."""
KEEPS_THE_BASE = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to begin that leave the base model as it is. Others move part of it into the adapter."""

_PARTS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_embedding_A": "table_a",
    "lora_embedding_B": "table_b",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
}

Config = Mapping[str, Any]
Tensors = Mapping[str, LazyTensor]


def read_adapter(path: Path, base: Checkpoint) -> Adapter:
    """Open an adapter of this model; of the weights, only the header is read. Raises SourceError."""
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (path / name).is_file():
            raise SourceError(
                f"{path / name}: missing; an adapter is a folder as PEFT's save_pretrained writes it"
            )
    config = read_json(path / CONFIG_NAME)
    try:
        _check_config(config)
        adapter = _read(path, config, base)
    except ConfigError as error:
        raise SourceError(f"{path / CONFIG_NAME}: {error}") from None
    except MisfitError as error:
        raise SourceError(f"{path / WEIGHTS_NAME}: {error}") from None
    _check_fits(adapter, base)
    return adapter


def _check_config(config: Config) -> None:
    if config.get("peft_type") != "LORA":
        raise ConfigError(f"peft_type is {config.get('peft_type')!r}; LORA can be read")
    begun = config.get("init_lora_weights", True)
    if begun not in KEEPS_THE_BASE:
        raise ConfigError(
            f"init_lora_weights is {begun!r}, which changes the base model too; save the adapter with "
            "path_initial_model_for_weight_conversion"
        )
    for field in sorted(config.keys() - USED - DESCRIPTIVE):
        if config[field]:
            raise ConfigError(f"{field} is {config[field]!r:.60}; not supported, and it changes the adapter")


def _read(path: Path, config: Config, base: Checkpoint) -> Adapter:
    modules, replaced = _sorted(path, stored_tensors(path / WEIGHTS_NAME))
    inward: dict[str, LazyTensor] = {}
    outward: dict[str, LazyTensor] = {}
    magnitudes: dict[str, LazyTensor] = {}
    for module, parts in modules.items():
        a, b = _matrices(path, module, parts, turned=flag(config, "fan_in_fan_out", False))
        _check_rank(config, module, a.shape[0])
        inward[module], outward[f"{module}.weight"] = a, b
        if "magnitude" in parts:
            magnitudes[f"{module}.bias"] = parts["magnitude"]  # one number for each row, as a bias
    layout = SPELLINGS.get(base.config["model_type"], Spelling()).layout
    low_rank = {}
    for name, b in outward.items():
        module = name.removesuffix(".weight")
        scale = _scale(config, module, inward[module].shape[0])
        for place, piece in canonical({name: b}, layout, base.config).items():
            low_rank[place] = LowRank(inward[module], piece, scale)
    lengths = canonical(magnitudes, layout, base.config)
    return Adapter(
        name=path.resolve().name,
        path=path,
        files=(path / WEIGHTS_NAME,),
        low_rank=low_rank,
        replaced=canonical(replaced, layout, base.config),
        magnitudes={name.removesuffix("bias") + "weight": length for name, length in lengths.items()},
    )


def _sorted(path: Path, tensors: Tensors) -> tuple[dict[str, dict[str, LazyTensor]], dict[str, LazyTensor]]:
    """Parts of each adapted module, and tensors that were saved whole. Raises SourceError for any other."""
    modules: dict[str, dict[str, LazyTensor]] = {}
    replaced, strange = {}, []
    for name, tensor in tensors.items():
        known = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.({'|'.join(map(re.escape, _PARTS))})", name)
        whole = re.fullmatch(rf"{re.escape(PREFIX)}(.+?)(?:\.base_layer)?\.(weight|bias)", name)
        if known:
            modules.setdefault(known[1], {})[_PARTS[known[2]]] = tensor
        elif whole and "lora_" not in name:
            replaced[f"{whole[1]}.{whole[2]}"] = tensor
        else:
            strange.append(name)
    if strange:
        raise SourceError(f"{path / WEIGHTS_NAME}: tensors that are not understood: {listed(strange)}")
    if not modules and not replaced:
        raise SourceError(f"{path / WEIGHTS_NAME}: holds no tensors of an adapter")
    return modules, replaced


def _matrices(path: Path, module: str, parts: Tensors, *, turned: bool) -> tuple[LazyTensor, LazyTensor]:
    """A, `[rank, inputs]`, and B as the module stores its weight. Of a table, both the other way round."""
    for a, b in (("a", "b"), ("table_a", "table_b")):
        if a in parts and b in parts:
            inner, outer = parts[a], parts[b]
            if len(inner.shape) != 2 or len(outer.shape) != 2 or inner.shape[0] != outer.shape[1]:
                raise SourceError(
                    f"{path / WEIGHTS_NAME}: {module} has A {list(inner.shape)} and B {list(outer.shape)}, "
                    "which are no two matrices of one rank"
                )
            if a == "table_a":
                return transposed(outer), transposed(inner)
            return inner, transposed(outer) if turned else outer
    raise SourceError(
        f"{path / WEIGHTS_NAME}: {module} has {', '.join(sorted(parts))} only; A and B are needed"
    )


def _check_rank(config: Config, module: str, rank: int) -> None:
    said = _of_module(config, "rank_pattern", module, integer(config, "r"))
    if said != rank:
        raise ConfigError(f"{module} has rank {rank}, but r and rank_pattern say {said}")


def _scale(config: Config, module: str, rank: int) -> float:
    alpha = _of_module(config, "alpha_pattern", module, number(config, "lora_alpha"))
    return alpha / (math.sqrt(rank) if flag(config, "use_rslora", False) else rank)


def _of_module(config: Config, field: str, module: str, default: float) -> float:
    """The number of the first pattern that fits a module's name, from its end, as PEFT has it."""
    for pattern in config.get(field) or {}:
        if re.match(rf"(.*\.)?({pattern})$", module):
            return number(config[field], pattern)
    return default


def _check_fits(adapter: Adapter, base: Checkpoint) -> None:
    """Raises SourceError listing all that is not as in the base model, at once."""
    if faults := list(_faults(adapter, base)):
        raise SourceError(
            f"{adapter.path}: is not an adapter of {base.name} ({len(faults)} differences): {listed(faults)}"
        )


def _faults(adapter: Adapter, base: Checkpoint) -> Iterator[str]:
    shapes: list[tuple[str, Sequence[int]]] = [
        *((name, low_rank.shape) for name, low_rank in adapter.low_rank.items()),
        *((name, tensor.shape) for name, tensor in adapter.replaced.items()),
        *((name, lengths.shape) for name, lengths in adapter.magnitudes.items()),
    ]
    for name, shape in sorted(shapes):
        stored = TABLE if name == HEAD and name not in base.names() else name  # a tied head
        if stored not in base.names():
            yield f"there is no {name}"
        elif (own := base.tensor(stored).shape[: len(shape)]) != tuple(shape):
            yield f"{name} is for {list(shape)}, here it is {list(own)}"
