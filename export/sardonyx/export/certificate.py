"""`certificate.json`: the measured quality of exactly these bytes.

What was measured, how, on which machine, and the limits it was held to; bound by hashes to the files it
speaks of, to their manifest, and to itself (`runtime.integrity` holds it against all three). It holds numbers
and judges them; it does not know how they are measured.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sardonyx.runtime.errors import ArtifactError, VerificationFailed
from sardonyx.runtime.integrity import digest
from sardonyx.runtime.manifest import CERTIFICATE_NAME, FileRecord, Source

CERTIFICATE_FORMAT = 1
"""Version of the certificate's fields and of what they mean."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a recipe promises. Divergence in nats per token, over the project's own texts.

    `noise` bounds the worst absolute logit difference between two ways of feeding the same tokens (stepwise,
    in chunks, after a rewind), `flips` the share of first choices that may differ between them. Rounded
    activations amplify the last bit of a float into a whole step, so both are properties of the recipe.
    Batched and alone must be equal to the bit whatever the recipe. None: not limited.
    """

    kl_mean: float | None = None
    kl_p99: float | None = None
    top1: float | None = None
    perplexity_ratio: float | None = None
    noise: float | None = None
    flips: float | None = None


UNLIMITED = Limits()


class TextQuality(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the artifact (the candidate) predicts texts of one kind, beside the reference.

    `kl_*` is KL(reference || candidate) of the next token's distribution, in nats, with the standard error of
    its mean. `top1`: share of tokens for which both choose the same first; `top5`: for which the reference's
    first choice is among the candidate's first five. Perplexities carry their standard error; the ratio is
    candidate by reference, its error that of the paired difference. All errors take tokens as independent.
    """

    tokens: int
    windows: int
    kl_mean: float
    kl_mean_error: float
    kl_median: float
    kl_p99: float
    kl_max: float
    top1: float
    top5: float
    reference_perplexity: float
    reference_perplexity_error: float
    perplexity: float
    perplexity_error: float
    perplexity_ratio: float
    perplexity_ratio_error: float


class GreedyRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fixed prompt decoded greedily by both. `diverged_at` counts answer tokens from 0; None: never."""

    prompt: str
    tokens: int
    diverged_at: int | None


class Invariant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Two ways of feeding the same tokens, and how the logits they gave differ."""

    name: str
    positions: int
    worst: float
    """Absolute difference of two logits."""
    kl_mean: float
    """Nats per token: what of a recipe's divergence is the noise of rounded activations."""
    flips: int
    """Positions at which the first choice differs."""
    limit: float | None
    flips_limit: float | None
    """Of the share `flips / positions`."""


class Structure(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the graph consists of. `faults` names what the recipe did not promise, one line each."""

    ops: dict[str, int]
    """Nodes by operator."""
    bytes: dict[str, int]
    """Bytes of weights by class: embedding, attention, mlp, head, norms, rotary, other."""
    head: str
    """Quantizer of the vocabulary head."""
    minimum_onnxruntime: str
    faults: list[str] = []
    warnings: list[str] = []


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where it was measured: other processors have other kernels, and round otherwise."""

    processor: str
    system: str
    threads: int
    provider: str
    onnxruntime: str
    numpy: str
    python: str


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that is known of an artifact's quality. `digest` is over all other fields."""

    format: int
    model: str
    architecture: str
    parameters: int
    vocab_size: int
    recipe: str
    source: Source
    exporter: str
    reference: str
    """What the artifact was measured against."""
    convention: str
    """How texts were cut into windows and what was scored: beside every perplexity, or it means nothing."""
    texts_sha256: str
    """Of the windows' token ids: measurements are comparable when these are equal."""
    overall: TextQuality
    texts: dict[str, TextQuality]
    """By kind of text."""
    greedy: list[GreedyRun]
    invariants: list[Invariant]
    structure: Structure
    machine: Machine
    limits: Limits
    files: dict[str, FileRecord]
    """The files that were measured: all of the artifact but this one and the manifest."""
    manifest_sha256: str
    """Of the manifest without its entry for this file."""
    digest: str = ""


class Check(msgspec.Struct, frozen=True):
    """One demand, and whether it was met."""

    what: str
    measured: str
    demanded: str
    met: bool


def checks(certificate: Certificate) -> list[Check]:
    """Every limit of a certificate beside what was measured."""
    return [
        *quality_checks(certificate.overall, certificate.limits),
        *invariant_checks(certificate.invariants),
        *structure_checks(certificate.structure),
    ]


def quality_checks(quality: TextQuality, limits: Limits) -> Iterator[Check]:
    """One for each figure that is limited."""
    yield from at_most("mean KL", quality.kl_mean, limits.kl_mean)
    yield from at_most("p99 KL", quality.kl_p99, limits.kl_p99)
    yield from at_most("perplexity ratio", quality.perplexity_ratio, limits.perplexity_ratio)
    yield from at_least("top-1 agreement", quality.top1, limits.top1)


def invariant_checks(invariants: Iterable[Invariant]) -> Iterator[Check]:
    """Two for each invariant that is limited: the worst logit, and the share of flips."""
    for found in invariants:
        yield from at_most(f"{found.name}: logits", found.worst, found.limit)
        yield from at_most(f"{found.name}: flips", found.flips / found.positions, found.flips_limit)


def structure_checks(structure: Structure) -> Iterator[Check]:
    """One for each fault, or one in all."""
    yield from (Check("structure", fault, "no fault", met=False) for fault in structure.faults)
    if not structure.faults:
        yield Check("structure", "no fault", "no fault", met=True)


def at_most(what: str, measured: float, limit: float | None) -> Iterator[Check]:
    """A check, if there is a limit. What is not a number does not meet it."""
    if limit is not None:
        yield Check(what, f"{measured:.4g}", f"at most {limit:.4g}", met=measured <= limit)


def at_least(what: str, measured: float, limit: float | None) -> Iterator[Check]:
    """A check, if there is a limit. What is not a number does not meet it."""
    if limit is not None:
        yield Check(what, f"{measured:.4g}", f"at least {limit:.4g}", met=measured >= limit)


def demand(what: str, found: Sequence[Check]) -> None:
    """Raises VerificationFailed with a table of the checks that are not met, if there are any."""
    missed = [check for check in found if not check.met]
    if missed:
        rows = [(check.what, check.measured, check.demanded) for check in missed]
        raise VerificationFailed(
            f"{what}: {len(missed)} of {len(found)} checks not met",
            [("MISSED", "MEASURED", "DEMANDED"), *rows],
        )


def seal(certificate: Certificate) -> Certificate:
    """The certificate with its digest."""
    as_read = msgspec.json.decode(encode(certificate), type=Certificate)  # a limit of 0 becomes 0.0
    return msgspec.structs.replace(as_read, digest=_digest(as_read))


def encode(certificate: Certificate) -> bytes:
    """As it is stored: sorted and indented, so that equal certificates are equal bytes."""
    return msgspec.json.format(msgspec.json.encode(certificate, order="sorted"), indent=2) + b"\n"


def read_certificate(path: Path) -> Certificate:
    """Read a stored certificate. Raises ArtifactError when it is missing, damaged, edited or of another
    format.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; `sardonyx verify` with --against measures anew") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        version = msgspec.json.decode(data, type=dict[str, Any]).get("format")
        if version != CERTIFICATE_FORMAT:
            raise ArtifactError(f"{path}: certificate format {version}, this is for {CERTIFICATE_FORMAT}")
        certificate = msgspec.json.decode(data, type=Certificate)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: not a certificate, or damaged ({error})") from None
    if certificate.digest != _digest(certificate):
        raise ArtifactError(f"{path}: edited since it was measured; export the model again")
    return certificate


def stored_certificate(folder: Path) -> Certificate | None:
    """The certificate of an artifact, if it has one. Raises ArtifactError for one that is not sound."""
    path = folder / CERTIFICATE_NAME
    return read_certificate(path) if path.is_file() else None


def _digest(certificate: Certificate) -> str:
    return digest(msgspec.to_builtins(certificate), but="digest")
