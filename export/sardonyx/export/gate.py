"""The gate of a pipeline: a certificate against a baseline and a budget, and the report that CI systems read.

It compares numbers that were measured elsewhere. What counts as worse is written here, in one place.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from sardonyx.export.certificate import Certificate, Check, at_least, at_most
from sardonyx.runtime.errors import RequestError

RISE, KL_SLACK = 1.1, 0.002
"""Mean KL may rise by a tenth and by so many nats: what other processors' kernels make of the same bytes."""

PERPLEXITY_RISE = 1.02
"""Factor by which the ratio of perplexities may rise."""

TOP1_FALL = 0.01
"""By how much the share of equal first choices may fall."""


def gate(
    certificate: Certificate, baseline: Certificate | None, max_kl: float | None, name: str = "baseline"
) -> Iterator[Check]:
    """Checks against a budget and an earlier certificate. `name` is where that one was read from.

    Raises RequestError for a baseline of another model or of other texts, which is no measure.
    """
    yield from at_most("mean KL within --max-kl", certificate.overall.kl_mean, max_kl)
    if baseline is not None:
        _require_comparable(certificate, baseline, name)
        new, old = certificate.overall, baseline.overall
        yield from at_most("mean KL beside the baseline", new.kl_mean, RISE * old.kl_mean + KL_SLACK)
        yield from at_most(
            "perplexity ratio beside the baseline",
            new.perplexity_ratio,
            PERPLEXITY_RISE * old.perplexity_ratio,
        )
        yield from at_least("top-1 agreement beside the baseline", new.top1, old.top1 - TOP1_FALL)


def junit(suite: str, checks: Sequence[Check]) -> bytes:
    """Checks as a JUnit XML report, a test case each."""
    missed = sum(not check.met for check in checks)
    counts = {"tests": str(len(checks)), "failures": str(missed), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", counts)
    within = ElementTree.SubElement(root, "testsuite", {"name": suite, **counts})
    for check in checks:
        case = ElementTree.SubElement(within, "testcase", {"classname": suite, "name": check.what})
        said = f"measured {check.measured}, demanded {check.demanded}"
        if check.met:
            ElementTree.SubElement(case, "system-out").text = said
        else:
            ElementTree.SubElement(case, "failure", {"message": said, "type": "missed"}).text = said
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def write_junit(path: Path, suite: str, checks: Sequence[Check]) -> None:
    """Raises RequestError when the report cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(junit(suite, checks))
    except OSError as error:
        raise RequestError(f"{path}: the report cannot be written ({error.strerror})") from None


def _require_comparable(certificate: Certificate, baseline: Certificate, name: str) -> None:
    if _identity(certificate) != _identity(baseline):
        raise RequestError(
            f"{name}: a certificate of {_named(baseline)}, which is no baseline for {_named(certificate)}"
        )
    if certificate.texts_sha256 != baseline.texts_sha256:
        raise RequestError(
            f"{name}: measured on other texts or windows; measure both on the same, with the same options"
        )


def _identity(certificate: Certificate) -> tuple[str, str, int, int]:
    return certificate.model, certificate.architecture, certificate.parameters, certificate.vocab_size


def _named(certificate: Certificate) -> str:
    return f"{certificate.model} ({certificate.architecture}, {certificate.parameters:,} parameters)"
