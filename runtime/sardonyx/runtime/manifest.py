"""`sardonyx.json`: all that export and runtime share.

The manifest says what an artifact is (states, vocabulary, special tokens, recipe) and of which bytes it
consists, so that the runtime asks the artifact and never a model's name. It does not know how either side
works.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from sardonyx.runtime.errors import ArtifactError, RequestError

FORMAT = 1
"""Version of the contract. Raised when an older runtime would misread a newer artifact."""

MANIFEST_NAME = "sardonyx.json"
MODEL_NAME = "model.onnx"
WEIGHTS_NAME = "model.onnx.data"
TOKENIZER_NAME = "tokenizer.json"
CHAT_TEMPLATE_NAME = "chat_template.jinja"
CERTIFICATE_NAME = "certificate.json"
CERTIFICATES = re.compile(r"certificate(?:-[a-z]+)?\.json")
"""The certificate and its like of other providers than the CPU: what was said of the artifact afterwards."""


PORTABLE = "portable"
"""The target of graphs that take an attention mask, as other programs' do, instead of lengths."""

MASKED = frozenset({PORTABLE, "cuda"})
"""Targets whose graphs take a mask."""

StateKind = Literal["kv", "window", "recurrent"]
DType = Literal["float32", "float16", "int8", "uint8"]
Positive = Annotated[int, msgspec.Meta(gt=0)]
FileName = Annotated[str, msgspec.Meta(pattern=r"^(?!\.{1,2}$)[^/\\:\x00-\x1f]+\Z")]
"""The name of a file in the folder itself, never a path to somewhere else."""


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One tensor that a sequence carries from step to step.

    `shape` is what one row (one sequence) holds. `kv`: `[kv_heads, head_width]` for each cached token, laid
    out as `[rows, kv_heads, capacity, head_width]`. `window`: `[positions, features]`, its last positions
    only, newest last, as `[rows, positions, features]`; without the oldest `spare` ones the next token can
    still be computed, so a row can be set back by as many.
    """

    input: str
    output: str
    kind: StateKind
    shape: Annotated[list[Positive], msgspec.Meta(min_length=2)]
    dtype: DType
    spare: int = 0


class Tokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Special tokens. `texts` holds the names that chat templates use (`bos_token`, `eos_token`, ...)."""

    eos: list[int]
    bos: int | None = None
    texts: dict[str, str] = {}


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and SHA-256 of one file of the artifact."""

    bytes: int
    sha256: str


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the weights came from: `sha256` is over the source's weight files in name order."""

    name: str
    format: str
    sha256: str


class Calibrated(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was read to see what weights multiply: `sha256` is over the token ids, little-endian uint32."""

    tokens: int
    sha256: str


class Switched(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An adapter that requests may ask for by name: `sha256` is over its weight files."""

    name: str
    sha256: str


class Tried(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many weights of those that were free in 8 bits and the others in 4: bytes of all files, mean KL in
    nats per token as it was predicted and, if it was, measured.
    """

    raised: int
    weights: int
    bytes: int
    predicted: float
    kl: float | None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an artifact is. `generation` keeps the model's own sampling defaults, in Hugging Face's terms."""

    format: int
    name: str
    architecture: str
    parameters: int
    vocab_size: Positive
    context_length: Positive
    recipe: str
    target: str
    states: Annotated[list[State], msgspec.Meta(min_length=1)]
    tokens: Tokens
    source: Source
    files: dict[FileName, FileRecord]
    minimum_onnxruntime: str
    exporter: str
    generation: dict[str, Any] = {}
    weights: dict[str, str] = {}
    """Quantizer of each weight, by canonical (Hugging Face) tensor name: the recipe as it was applied."""

    calibration: Calibrated | None = None
    """What weights were calibrated on. None: nothing, each was rounded for itself."""

    sensitivity: dict[str, float] = {}
    """By name, the divergence (nats per token) that each weight in 4 bits would cause, where that decided."""

    searched: list[Tried] | msgspec.UnsetType = msgspec.UNSET
    """What a search of bits tried, in order; the last within its budget is what is here. Unset: none was."""

    hidden_size: int = 0
    """Width of the graph's output `hidden`, what the head reads of a position. 0: it has no such output."""

    adapters: list[Switched] | msgspec.UnsetType = msgspec.UNSET
    """Adapters 1, 2, ... of the graph's input `adapters`; 0 is none. Unset: it has no such input."""

    @property
    def adapter_names(self) -> list[str]:
        """What requests may ask for, in order."""
        return [adapter.name for adapter in self.adapters or ()]

    def adapter_number(self, name: str | None) -> int:
        """What the graph calls an adapter; None is 0. Raises RequestError for a name that there is not."""
        names = self.adapter_names
        if name is not None and name not in names:
            known = f"known: {', '.join(names)}" if names else "it was exported without --adapters"
            raise RequestError(f"{self.name} has no adapter {name!r}; {known}")
        return 0 if name is None else names.index(name) + 1

    def cache_bytes_per_token(self) -> int:
        """Bytes that one more token of one sequence adds to the cache."""
        width = {"float32": 4, "float16": 2, "int8": 1, "uint8": 1}
        return sum(width[s.dtype] * s.shape[0] * s.shape[1] for s in self.states if s.kind == "kv")


def read_manifest(folder: Path) -> Manifest:
    """Read and check `sardonyx.json` of an artifact folder. Raises ArtifactError naming the file and the
    fault.
    """
    path = folder / MANIFEST_NAME
    try:
        if not folder.is_dir():
            raise ArtifactError(
                f"{folder}: no such folder; `sardonyx list` shows the artifacts that are here"
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: missing, so {folder} is not a sardonyx artifact; make one with `sardonyx export`"
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        version = msgspec.json.decode(data, type=dict[str, Any]).get("format")
        if version != FORMAT:
            raise ArtifactError(
                f"{path}: format {version}, this runtime reads format {FORMAT}; export the model again"
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{path}: damaged ({error}); export the model again") from None
    for state in manifest.states:
        if state.kind == "recurrent":
            raise ArtifactError(
                f"{path}: {state.input} is a state of kind {state.kind}, which this runtime cannot hold; "
                "update sardonyx"
            )
    return manifest


def certificate_name(provider: str) -> str:
    """The file for what was measured on a provider."""
    return CERTIFICATE_NAME if provider == "cpu" else f"certificate-{provider}.json"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `sardonyx.json`, stable in order and spacing so that equal exports are equal bytes."""
    data = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2)
    (folder / MANIFEST_NAME).write_bytes(data + b"\n")
