"""From a folder to the parts of an LLM, whoever wrote it. Knows files; what the parts do is their
business."""

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from sardonyx.runtime.backends.base import Program
from sardonyx.runtime.backends.masked import MaskedProgram
from sardonyx.runtime.backends.ort import OrtProgram, open_session
from sardonyx.runtime.backends.signature import read_signature
from sardonyx.runtime.chat_template import ChatTemplate
from sardonyx.runtime.integrity import checking
from sardonyx.runtime.manifest import CHAT_TEMPLATE_NAME, MODEL_NAME, PORTABLE, Manifest, read_manifest
from sardonyx.runtime.neighbours import read
from sardonyx.runtime.neighbours.folder import Neighbour
from sardonyx.runtime.neighbours.self_check import check_tokenizer
from sardonyx.runtime.onnx_outline import read_outline
from sardonyx.runtime.tokenizer import Tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What an LLM is put together from."""

    manifest: Manifest
    tokenizer: Tokenizer
    template: ChatTemplate | None
    program: Program


def load_parts(folder: Path, threads: int, *, check: bool, mapped: bool) -> Parts:
    """An artifact's, or of a neighbour's folder or graph. `check` compares files with the hashes that an
    artifact was written with. Raises SardonyxError naming the file that is not as it should be.
    """
    neighbour = read(folder)
    if neighbour is not None:
        return _of_neighbour(neighbour, threads, mapped=mapped)
    manifest = read_manifest(folder)
    with checking(folder, manifest) if check else nullcontext():
        program = _program(folder, manifest, threads, mapped=mapped)
        path = folder / CHAT_TEMPLATE_NAME
        template = ChatTemplate(path.read_text("utf-8"), manifest.tokens.texts) if path.is_file() else None
        return Parts(manifest, Tokenizer.load(folder), template, program)


def _program(folder: Path, manifest: Manifest, threads: int, *, mapped: bool) -> Program:
    if manifest.target != PORTABLE:
        return OrtProgram(folder, manifest, threads, mapped=mapped)
    path = folder / MODEL_NAME
    signature = read_signature(path, read_outline(path))
    session = open_session(path, threads, mapped=mapped, needs=manifest.minimum_onnxruntime)
    return MaskedProgram(session, signature, manifest.vocab_size)


def _of_neighbour(neighbour: Neighbour, threads: int, *, mapped: bool) -> Parts:
    manifest, files = neighbour.manifest, neighbour.tokenizer
    tokenizer = Tokenizer.parse(files.tokenizer_json)
    check_tokenizer(neighbour.laid.folder, tokenizer, manifest.vocab_size)
    for line in neighbour.slow:
        log.warning("%s: %s", neighbour.laid.graph, line)
    session = open_session(neighbour.laid.graph, threads, mapped=mapped)
    template = ChatTemplate(files.chat_template, files.special_texts) if files.chat_template else None
    program = MaskedProgram(session, neighbour.signature, manifest.vocab_size)
    return Parts(manifest, tokenizer, template, program)
