"""How certificates are shown: a line, a table of texts, a table of checks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sardonyx.export.certificate import Certificate, Check, TextQuality

Rows = list[tuple[str, ...]]


def quality_line(certificate: "Certificate | None") -> str:
    """The most important figures."""
    if certificate is None:
        return "no certificate: its quality has not been measured"
    quality = certificate.overall
    return (
        f"measured on {quality.tokens:,} tokens: mean KL {quality.kl_mean:.4f} nats, "
        f"top-1 {quality.top1:.1%}, perplexity {quality.perplexity:.2f} "
        f"(x{quality.perplexity_ratio:.3f} of the reference)"
    )


def quality_rows(qualities: Mapping[str, "TextQuality"]) -> Rows:
    """All figures, a row for each kind of text."""
    heading = ("TEXT", "TOKENS", "MEAN KL", "MEDIAN", "P99", "MAX", "TOP-1", "TOP-5")
    rows = (_quality_row(kind, quality) for kind, quality in qualities.items())
    return [(*heading, "PERPLEXITY", "REFERENCE", "RATIO"), *rows]


def certificate_text(certificate: "Certificate") -> str:
    """A certificate's figures for people."""
    from sardonyx.runtime.cli.terminal import table_text

    machine = certificate.machine
    where = f"{machine.processor}, {machine.threads} threads, onnxruntime {machine.onnxruntime}"
    return "\n\n".join(
        [
            table_text(quality_rows({**certificate.texts, "all": certificate.overall})),
            f"Reference: {certificate.reference}\nTexts: {certificate.convention}\nMeasured on: {where}",
            table_text(feeding_rows(certificate)),
            greedy_line(certificate),
        ]
    )


def _quality_row(kind: str, quality: "TextQuality") -> tuple[str, ...]:
    return (
        kind,
        f"{quality.tokens:,}",
        f"{quality.kl_mean:.4f} ± {quality.kl_mean_error:.4f}",
        f"{quality.kl_median:.4f}",
        f"{quality.kl_p99:.3f}",
        f"{quality.kl_max:.3f}",
        f"{quality.top1:.1%}",
        f"{quality.top5:.1%}",
        f"{quality.perplexity:.2f} ± {quality.perplexity_error:.2f}",
        f"{quality.reference_perplexity:.2f} ± {quality.reference_perplexity_error:.2f}",
        f"{quality.perplexity_ratio:.4f} ± {quality.perplexity_ratio_error:.4f}",
    )


def check_rows(checks: Iterable["Check"]) -> Rows:
    """Every check and how it ended."""
    rows = [(c.what, c.measured, c.demanded, "ok" if c.met else "MISSED") for c in checks]
    return [("CHECK", "MEASURED", "DEMANDED", ""), *rows]


def feeding_rows(certificate: "Certificate") -> Rows:
    """The invariants with what was measured, limited or not."""
    heading = ("SAME TOKENS, FED IN TWO WAYS", "WORST LOGIT", "MEAN KL", "FLIPS")
    found = certificate.invariants
    return [
        heading,
        *((i.name, f"{i.worst:.2g}", f"{i.kl_mean:.2g}", f"{i.flips} of {i.positions}") for i in found),
    ]


def greedy_line(certificate: "Certificate") -> str:
    """Where greedy decoding left the reference's path."""
    runs = certificate.greedy
    places: Sequence[str] = ["never" if run.diverged_at is None else str(run.diverged_at) for run in runs]
    tokens = runs[0].tokens if runs else 0
    return f"greedy answers of {tokens} tokens leave the reference's at token {', '.join(places) or '-'}"
