"""Runs an artifact against a reference and writes down what it saw: the certificate.

The reference is this project's own float32 artifact of the same source, run by the same runtime. It knows
what to measure and in which order; how is left to the modules that measure.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from sardonyx.export.build import Progress, unheard
from sardonyx.export.certificate import (
    CERTIFICATE_FORMAT,
    Certificate,
    GreedyRun,
    Invariant,
    Limits,
    encode,
    seal,
)
from sardonyx.export.checkpoint import Float32
from sardonyx.export.divergence import Divergence, Window, compare, concatenated, summary
from sardonyx.export.invariants import WAYS, invariants
from sardonyx.export.machine import this_machine
from sardonyx.export.structure import structure
from sardonyx.export.texts import GREEDY_PROMPTS, Texts, all_texts, own_texts, texts_of
from sardonyx.runtime.errors import RequestError, VerificationFailed
from sardonyx.runtime.integrity import file_record, manifest_digest
from sardonyx.runtime.llm import LLM, MAPPED, ON_CPU, Place
from sardonyx.runtime.manifest import (
    CERTIFICATES,
    PORTABLE,
    TOKENIZER_NAME,
    Manifest,
    certificate_name,
    read_manifest,
    write_manifest,
)
from sardonyx.runtime.neighbours import read
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies import Feed

GREEDY_TOKENS = 32


@dataclass(frozen=True)
class Scope:
    """What to measure on: a user's own texts, or the project's, of which a thorough measurement takes all;
    and the provider that computes what is measured.
    """

    thorough: bool = False
    files: tuple[Path, ...] = ()
    place: Place = ON_CPU

    def texts(self, llm: LLM) -> Texts:
        """Cut for a model. Raises RequestError for an unfit text."""
        return texts_of(llm, self.files) if self.files else own_texts(llm, thorough=self.thorough)


def certify(
    folder: Path,
    reference: Path | None,
    limits: Limits,
    scope: Scope,
    progress: Progress = unheard,
    parts: Mapping[str, Divergence] | None = None,
) -> Certificate:
    """Measure an artifact against a reference artifact; None: it is its own, as float32 is.

    `parts` are its divergences, if they were measured already. Holds both models and one window of logits of
    each. Raises RequestError when their tokens differ or a text is unfit, VerificationFailed when logits are
    not numbers.
    """
    llm = LLM.load(folder, place=scope.place)
    manifest, neighbour = llm.manifest, read(folder)
    if reference is None and scope.place.provider.name != "cpu":
        reference = folder  # of a provider, the CPU is the reference
    other = llm if reference is None else LLM.load(reference, place=MAPPED)
    texts = scope.texts(llm)
    parts = parts or diverge(other, llm, texts, progress)
    greedy = [] if reference is None else list(_greedy(other, llm, progress))
    certificate = Certificate(
        format=CERTIFICATE_FORMAT,
        model=manifest.name,
        architecture=manifest.architecture,
        parameters=manifest.parameters,
        vocab_size=manifest.vocab_size,
        recipe=manifest.recipe,
        source=manifest.source,
        exporter=manifest.exporter,
        reference=_reference_text(None if reference is None else other.manifest),
        convention=texts.convention,
        texts_sha256=texts.sha256,
        overall=summary(concatenated(list(parts.values())), texts.count),
        texts={kind: summary(part, len(texts.windows[kind])) for kind, part in parts.items()},
        greedy=greedy,
        invariants=feeding(llm, limits, progress),
        structure=structure(folder, manifest),
        machine=this_machine(scope.place.provider.kernel),
        limits=limits,
        files={name: file for name, file in manifest.files.items() if not CERTIFICATES.fullmatch(name)}
        if neighbour is None
        else {path.name: file_record(path) for path in neighbour.files},
        manifest_sha256=manifest_digest(folder) if neighbour is None else "",
    )
    return seal(certificate)


def feeding(llm: LLM, limits: Limits, progress: Progress = unheard) -> list[Invariant]:
    """Measure the invariants on the project's own texts."""
    windows = [windows[0] for windows in own_texts(llm).windows.values()]
    found: list[Invariant] = []
    for invariant in invariants(llm, windows, limits):
        found.append(invariant)
        progress(len(found), WAYS, "feeding the same tokens in other ways")
    return found


def diverge(
    reference: LLM,
    candidate: LLM,
    texts: Texts,
    progress: Progress = unheard,
    kept: Path | None = None,
) -> dict[str, Divergence]:
    """Run both over the texts, by kind of text. They may be the same. The reference's logits stay in the
    folder `kept`, if there is one, for the next candidate.

    Raises RequestError when their tokens differ, VerificationFailed when logits are not numbers.
    """
    _require_same_tokens(candidate, reference)
    parts: dict[str, list[Divergence]] = {}
    what = f"measuring {candidate.manifest.name} as {candidate.manifest.recipe}"
    for done, (kind, window) in enumerate((k, w) for k, windows in texts.windows.items() for w in windows):
        progress(done, texts.count, what)
        expected = _logits(reference, window) if kept is None else _kept_logits(reference, window, kept)
        found = expected if candidate is reference else _logits(candidate, window)
        parts.setdefault(kind, []).append(compare(expected, found, window))
    progress(texts.count, texts.count, what)
    return {kind: concatenated(found) for kind, found in parts.items()}


def store(folder: Path, certificate: Certificate, provider: str = "cpu") -> Manifest:
    """Put a certificate beside the model it was measured on, and into its manifest, as what holds on this
    provider. Raises RequestError for a
    neighbour's folder, which has none.
    """
    if read(folder) is not None:
        raise RequestError(
            f"{folder}: not an artifact of sardonyx, so nothing would check a certificate there"
        )
    path = folder / certificate_name(provider)
    path.write_bytes(encode(certificate))
    manifest = read_manifest(folder)
    files = {**manifest.files, path.name: file_record(path)}
    manifest = msgspec.structs.replace(manifest, files=files)
    write_manifest(folder, manifest)
    return manifest


def _require_same_tokens(candidate: LLM, reference: LLM) -> None:
    """The same file; where others wrote one of them, it need only do the same."""
    one, other = candidate.manifest, reference.manifest
    if PORTABLE in (one.target, other.target):
        same = one.vocab_size == other.vocab_size and all(
            candidate.tokenizer.encode(text) == reference.tokenizer.encode(text) for text in all_texts()
        )
    else:
        same = one.files[TOKENIZER_NAME] == other.files[TOKENIZER_NAME]
    if not same:
        raise RequestError(
            f"{other.name} has another tokenizer than {one.name}: they are different models, "
            "and no measure of each other"
        )


def _reference_text(reference: Manifest | None) -> str:
    if reference is None:
        return "itself: float32 is the reference"
    return f"{reference.name} as {reference.recipe}, source SHA-256 {reference.source.sha256[:12]}"


def _logits(llm: LLM, window: Window) -> Float32:
    ((logits,),) = llm.logits(Feed([window], wanted=len(window)))
    if not np.isfinite(logits).all():
        raise VerificationFailed(
            f"{llm.manifest.name} as {llm.manifest.recipe}: its logits are not numbers",
            [("MISSED", "MEASURED", "DEMANDED"), ("logits", "not a number", "finite")],
        )
    return logits


def _kept_logits(reference: LLM, window: Window, folder: Path) -> Float32:
    """From the folder, or from now on."""
    digest = hashlib.sha256(np.array(window, "<u4").tobytes()).hexdigest()
    path = folder / f"{digest}.npy"
    if not path.exists():
        np.save(path, _logits(reference, window))
    logits: Float32 = np.load(path)
    return logits


def _greedy(reference: LLM, candidate: LLM, progress: Progress) -> Iterator[GreedyRun]:
    """Decode the fixed prompts with both, all at once: an answer is the same to the bit alone."""
    params = SamplingParams(max_tokens=GREEDY_TOKENS, ignore_eos=True)
    most = candidate.manifest.context_length // 2
    prompts = [candidate.encode(prompt)[:most] for prompt in GREEDY_PROMPTS]
    answers = []
    for done, llm in enumerate((reference, candidate)):
        progress(done, 2, "decoding beside the reference")
        streams = [llm.stream(ids, params) for ids in prompts]
        for stream in streams:
            stream.wait()
        answers.append([stream.completion.tokens for stream in streams])
    for prompt, expected, found in zip(GREEDY_PROMPTS, *answers, strict=True):
        differing = (at for at, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b)
        yield GreedyRun(prompt, len(expected), next(differing, None))
    progress(2, 2, "decoding beside the reference")
