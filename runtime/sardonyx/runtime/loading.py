"""From a folder to the parts of an LLM, whoever wrote it. Knows files; what the parts do is their
business."""

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from sardonyx.runtime.backends.base import Program
from sardonyx.runtime.backends.masked import MaskedProgram
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.backends.parted import PartedProgram
from sardonyx.runtime.backends.probe import Kind, all_rules
from sardonyx.runtime.backends.providers import CPU, ON_CPU, Place
from sardonyx.runtime.backends.sessions import broken, open_session, run_once
from sardonyx.runtime.backends.signature import read_signature
from sardonyx.runtime.chat_template import ChatTemplate
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.integrity import checking
from sardonyx.runtime.manifest import CHAT_TEMPLATE_NAME, MASKED, MODEL_NAME, Manifest, read_manifest
from sardonyx.runtime.neighbours import read
from sardonyx.runtime.neighbours.folder import Neighbour
from sardonyx.runtime.neighbours.self_check import check_tokenizer
from sardonyx.runtime.onnx_outline import read_outline
from sardonyx.runtime.threads import usable_cores
from sardonyx.runtime.tokenizer import Tokenizer

MOST_THREADS = 512
"""More than any one model has work for."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What an LLM is put together from."""

    manifest: Manifest
    tokenizer: Tokenizer
    template: ChatTemplate | None
    program: Program


def load_parts(folder: Path, threads: int | None, place: Place = ON_CPU, *, check: bool = True) -> Parts:
    """An artifact's, or of a neighbour's folder or graph. `check` compares files with the hashes that an
    artifact was written with. Raises SardonyxError naming the file that is not as it should be.
    """
    threads = usable_cores() if threads is None else threads
    if threads < 1:
        raise RequestError(f"threads={threads}: at least 1 is needed")
    if threads > MOST_THREADS:  # onnxruntime would make them, and hardly start
        raise RequestError(f"threads={threads}: more than {MOST_THREADS} help nobody")
    neighbour = read(folder)
    if neighbour is not None:
        return _of_neighbour(neighbour, threads, place)
    manifest = read_manifest(folder)
    with checking(folder, manifest) if check else nullcontext():
        program = _placed(_program(folder, manifest, threads, place), folder / MODEL_NAME, place)
        path = folder / CHAT_TEMPLATE_NAME
        template = ChatTemplate(path.read_text("utf-8"), manifest.tokens.texts) if path.is_file() else None
        return Parts(manifest, Tokenizer.load(folder), template, program)


def _program(folder: Path, manifest: Manifest, threads: int, place: Place) -> Program:
    if manifest.target not in MASKED:
        return OrtProgram(folder, manifest, threads, place)
    path = folder / MODEL_NAME
    signature = read_signature(path, read_outline(path))
    session = open_session(path, threads, place, needs=manifest.minimum_onnxruntime)
    return MaskedProgram(session, signature, manifest.vocab_size, place)


def _of_neighbour(neighbour: Neighbour, threads: int, place: Place) -> Parts:
    manifest, files = neighbour.manifest, neighbour.tokenizer
    tokenizer = Tokenizer.parse(files.tokenizer_json)
    check_tokenizer(neighbour.laid.folder, tokenizer, manifest.vocab_size)
    for line in neighbour.slow:
        log.warning("%s: %s", neighbour.laid.graph, line)
    session = open_session(neighbour.laid.graph, threads, place)
    template = ChatTemplate(files.chat_template, files.special_texts) if files.chat_template else None
    program = MaskedProgram(session, neighbour.signature, manifest.vocab_size, place)
    return Parts(manifest, tokenizer, template, _placed(program, neighbour.laid.graph, place))


def _placed(program: Program, graph: Path, place: Place) -> Program:
    """The program, asked for no more at once than its provider gets right."""
    if place.provider is CPU:
        return program
    name = place.provider.name
    right = all_rules(lambda model, feeds: run_once(model, feeds, place), read_outline(graph))
    if isinstance(right, Kind):
        raise RequestError(
            f"provider {name}: {right} comes out wrong on this device; update provider and driver, or take "
            "--provider cpu"
        )
    if right.widest:
        log.warning(
            "%s: comes out wrong for many tokens at once on this device; it gets %d at a time",
            name,
            right.widest,
        )
    return PartedProgram(program, right, lambda error: broken(place.provider, error))
