"""Divergence against a slow, obvious computation."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sardonyx.export import divergence
from sardonyx.export.divergence import compare, concatenated, summary

Logits = NDArray[np.float32]


def probabilities(logits: Sequence[float]) -> list[float]:
    """Softmax, one number after another, in Python's floats."""
    largest = max(logits)
    weights = [math.exp(float(x) - float(largest)) for x in logits]
    return [weight / sum(weights) for weight in weights]


def random_logits(seed: int, tokens: int, vocab: int, scale: float) -> tuple[Logits, Logits, list[int]]:
    rng = np.random.default_rng(seed)
    reference = (scale * rng.standard_normal((tokens, vocab))).astype(np.float32)
    candidate = reference + (0.3 * rng.standard_normal((tokens, vocab))).astype(np.float32)
    return reference, candidate, rng.integers(0, vocab, tokens).tolist()


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(2, 9), st.integers(6, 40), st.sampled_from([0.1, 1.0, 8.0]))
def test_every_figure_is_what_its_definition_says(seed: int, tokens: int, vocab: int, scale: float) -> None:
    reference, candidate, window = random_logits(seed, tokens, vocab, scale)
    found = compare(reference, candidate, window)
    assert len(found.kl) == tokens - 1
    for at in range(tokens - 1):
        p, q = probabilities(reference[at]), probabilities(candidate[at])
        assert found.kl[at] == pytest.approx(
            sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)), abs=1e-9
        )
        assert found.reference_nll[at] == pytest.approx(-math.log(p[window[at + 1]]), abs=1e-9)
        assert found.nll[at] == pytest.approx(-math.log(q[window[at + 1]]), abs=1e-9)
        best = p.index(max(p))
        assert found.top1[at] == (best == q.index(max(q)))
        assert found.top5[at] == (best in sorted(range(vocab), key=lambda token: -q[token])[:5])


def test_nothing_diverges_from_itself() -> None:
    logits, _, window = random_logits(1, 30, 50, 5.0)
    found = summary(compare(logits, logits, window), windows=1)
    assert (found.kl_mean, found.kl_max, found.top1, found.top5) == (0, 0, 1, 1)
    assert (found.perplexity_ratio, found.perplexity_ratio_error) == (1, 0)


def test_who_knows_nothing_is_as_perplexed_as_there_are_tokens() -> None:
    logits, _, window = random_logits(2, 40, 64, 3.0)
    found = summary(compare(logits, np.full_like(logits, 7.5), window), windows=1)
    assert found.perplexity == pytest.approx(64, rel=1e-12)
    assert found.perplexity_error == pytest.approx(0, abs=1e-9)


def test_blocks_are_only_a_matter_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, candidate, window = random_logits(3, 33, 20, 2.0)
    whole = compare(reference, candidate, window)
    monkeypatch.setattr(divergence, "BLOCK_ELEMENTS", 50)
    cut = compare(reference, candidate, window)
    for name in ("kl", "top1", "top5", "reference_nll", "nll"):
        assert np.array_equal(getattr(whole, name), getattr(cut, name))


def test_large_logits_are_no_trouble() -> None:
    reference = np.array([[80.0, -80.0, 0.0]] * 3, np.float32) * 4
    found = compare(reference, -reference, [0, 0, 1])
    assert found.kl == pytest.approx([640, 640])
    assert found.nll == pytest.approx([640, 0])


def test_windows_are_summed_up_token_by_token() -> None:
    parts = [compare(*random_logits(seed, tokens, 12, 2.0)) for seed, tokens in ((1, 5), (2, 9))]
    both = concatenated(parts)
    found = summary(both, windows=2)
    kl = np.concatenate([part.kl for part in parts])
    assert (found.tokens, found.windows) == (12, 2)
    assert found.kl_mean == pytest.approx(kl.mean())
    assert found.kl_mean_error == pytest.approx(np.sqrt(kl.var(ddof=1) / 12))
    assert (found.kl_median, found.kl_max) == (pytest.approx(np.median(kl)), kl.max())
    assert found.perplexity_ratio == pytest.approx(found.perplexity / found.reference_perplexity)


def test_the_error_of_a_perplexity_is_how_far_it_scatters() -> None:
    """Perplexities of many samples of the same source scatter as widely as each of them says."""
    rng = np.random.default_rng(0)
    perplexities, errors = [], []
    for _ in range(400):
        logits = rng.standard_normal((200, 10)).astype(np.float32)
        found = summary(compare(logits, logits, rng.integers(0, 10, 200).tolist()), windows=1)
        perplexities.append(found.perplexity)
        errors.append(found.perplexity_error)
    assert np.std(perplexities) == pytest.approx(np.mean(errors), rel=0.12)
