"""How far one model's predictions are from another's, token by token.

Of two models' logits for a window of tokens only a few numbers for each token are kept, so that memory is
bounded by one window, whatever the length of the text. It knows neither models nor texts nor limits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import exp, sqrt

import numpy as np
from numpy.typing import NDArray

from sardonyx.export.certificate import TextQuality
from sardonyx.export.checkpoint import Float32

Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Window = Sequence[int]

HOPELESS = 700.0
"""Nats per token above which a perplexity is more than a float64 holds, and is cut off."""

BLOCK_ELEMENTS = 1 << 18
"""Logits turned to float64 at a time: 2 MiB, so that the arithmetic stays in the processor's cache."""


@dataclass(frozen=True)
class Divergence:
    """For each scored token (every token of a window but its first): `[scored]`."""

    kl: Float64
    """KL(reference || candidate) of the distribution that the token was drawn from, in nats."""
    top1: Bools
    """Both have the same first choice."""
    top5: Bools
    """The reference's first choice is among the candidate's first five."""
    reference_nll: Float64
    """-log of the probability that the reference gave the token, in nats."""
    nll: Float64
    """The same of the candidate."""


def compare(reference: Float32, candidate: Float32, window: Window) -> Divergence:
    """Compare the logits `[tokens, vocab]` of one window."""
    rows = max(1, BLOCK_ELEMENTS // reference.shape[1])
    targets = np.array(window[1:], np.int64)
    starts = range(0, len(targets), rows)
    cuts = [slice(start, min(start + rows, len(targets))) for start in starts]
    return concatenated([_block(reference[cut], candidate[cut], targets[cut]) for cut in cuts])


def concatenated(parts: Sequence[Divergence]) -> Divergence:
    """Several divergences as one."""
    names = [field.name for field in fields(Divergence)]
    return Divergence(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def summary(divergence: Divergence, windows: int) -> TextQuality:
    """The figures of a certificate."""
    kl = divergence.kl
    reference, reference_error = _perplexity(divergence.reference_nll)
    candidate, candidate_error = _perplexity(divergence.nll)
    ratio, ratio_error = _perplexity(divergence.nll - divergence.reference_nll)
    return TextQuality(
        tokens=len(kl),
        windows=windows,
        kl_mean=float(kl.mean()),
        kl_mean_error=_error(kl),
        kl_median=float(np.median(kl)),
        kl_p99=float(np.quantile(kl, 0.99)),
        kl_max=float(kl.max()),
        top1=float(divergence.top1.mean()),
        top5=float(divergence.top5.mean()),
        reference_perplexity=reference,
        reference_perplexity_error=reference_error,
        perplexity=candidate,
        perplexity_error=candidate_error,
        perplexity_ratio=ratio,
        perplexity_ratio_error=ratio_error,
    )


def _block(reference: Float32, candidate: Float32, targets: NDArray[np.int64]) -> Divergence:
    log_p, log_q = _log_softmax(reference), _log_softmax(candidate)
    rows = np.arange(len(targets))
    first = reference.argmax(-1)
    chosen = candidate[rows, first][:, None]
    better = (candidate > chosen).sum(-1)
    return Divergence(
        kl=np.maximum(np.einsum("rv,rv->r", np.exp(log_p), log_p - log_q), 0),
        top1=candidate.argmax(-1) == first,
        top5=better < 5,
        reference_nll=-log_p[rows, targets],
        nll=-log_q[rows, targets],
    )


def _log_softmax(logits: Float32) -> Float64:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted


def _perplexity(nll: Float64) -> tuple[float, float]:
    """exp of the mean, and its standard error (of the mean, carried through exp)."""
    perplexity = exp(min(float(nll.mean()), HOPELESS))
    return perplexity, perplexity * _error(nll)


def _error(values: Float64) -> float:
    """Standard error of the mean."""
    return float(values.std(ddof=1)) / sqrt(len(values)) if len(values) > 1 else 0.0
