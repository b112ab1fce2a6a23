"""What a neighbour's folder comes to, whichever layout it has: a manifest, a tokenizer, a signature.

It knows Hugging Face's terms, into which each layout translates its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sardonyx.runtime.backends.signature import Signature, read_signature
from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.huggingface.tokenizer_files import TokenizerFiles, read_tokenizer
from sardonyx.runtime.manifest import FORMAT, PORTABLE, Manifest, Source, Tokens
from sardonyx.runtime.onnx_outline import Outline, read_outline
from sardonyx.runtime.slow_paths import shared_scales, slow_paths

CONTEXTS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
)
"""How architectures call the most positions that they were made for."""


@dataclass(frozen=True)
class Laid:
    """What a layout says of one of its graphs, in the terms of Hugging Face's files.

    `settings` is the file with the configuration, for messages.
    """

    program: str
    folder: Path
    graph: Path
    variant: str
    settings: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]


@dataclass(frozen=True)
class Neighbour:
    """A neighbour's model, ready to be loaded. `slow` are lines about what its graph is slow at."""

    laid: Laid
    manifest: Manifest
    tokenizer: TokenizerFiles
    signature: Signature
    slow: tuple[str, ...]

    @property
    def files(self) -> list[Path]:
        """The graph and the files that it keeps its weights in."""
        beside = sorted(read_outline(self.laid.graph).files)
        return [self.laid.graph, *(self.laid.graph.parent / name for name in beside)]


def described(laid: Laid) -> Neighbour:
    """Look into a graph and the files around it. Raises ArtifactError or SourceError naming the file."""
    outline = read_outline(laid.graph)
    _check_files(laid.graph, outline)
    signature = read_signature(laid.graph, outline, _widths(laid.config))
    tokenizer = read_tokenizer(laid.folder, laid.config, laid.generation)
    return Neighbour(
        laid,
        _manifest(laid, signature, tokenizer, outline.producer),
        tokenizer,
        signature,
        (*slow_paths(outline), *shared_scales(outline), *_one_by_one(signature)),
    )


def _one_by_one(signature: Signature) -> Iterator[str]:
    if signature.first:
        yield "made for one token behind a past: prompts go token by token; get the merged graph"


def _check_files(graph: Path, outline: Outline) -> None:
    """What maps a file that was cut short dies of it."""
    for name, size in outline.files.items():
        path = graph.parent / name
        if graph.parent.resolve() not in path.resolve().parents:
            raise ArtifactError(f"{graph}: keeps weights in {name}, outside of its folder")
        if not path.is_file():
            raise ArtifactError(f"{path}: missing, but {graph.name} keeps weights there; get it, too")
        if path.stat().st_size < size:
            raise ArtifactError(
                f"{path}: {path.stat().st_size} bytes, but {graph.name} keeps {size} there; get it again"
            )


def _manifest(laid: Laid, signature: Signature, tokenizer: TokenizerFiles, producer: str) -> Manifest:
    name = laid.folder.resolve().name
    kind = laid.config.get("architectures") or ["unknown"]
    return Manifest(
        format=FORMAT,
        name=name,
        architecture=str(kind[0]),
        parameters=0,
        vocab_size=signature.logits.shape[2] or _size(laid, ("vocab_size",)),
        context_length=_size(laid, CONTEXTS),
        recipe=f"{laid.program} {laid.variant}".strip(),
        target=PORTABLE,
        states=signature.states,
        tokens=Tokens(list(tokenizer.eos_ids), tokenizer.bos_id, dict(tokenizer.special_texts)),
        source=Source(name, laid.program, ""),
        files={},
        minimum_onnxruntime="",
        exporter=producer or laid.program,
        generation=dict(laid.generation),
    )


def _size(laid: Laid, names: tuple[str, ...]) -> int:
    """The first of these settings that is there."""
    for name in names:
        value = laid.config.get(name)
        if isinstance(value, int) and value > 0:
            return value
    raise ArtifactError(f"{laid.settings}: says none of {', '.join(names)}; add one")


def _widths(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Heads and width of keys and values, as far as a configuration says."""

    def first(*names: str) -> int:
        return next((config[name] for name in names if isinstance(config.get(name), int)), 0)

    heads = first("num_attention_heads", "n_head", "num_heads")
    width = first("head_dim") or (first("hidden_size", "n_embd", "d_model") // heads if heads else 0)
    return first("num_key_value_heads", "num_attention_heads", "n_head", "num_heads"), width
