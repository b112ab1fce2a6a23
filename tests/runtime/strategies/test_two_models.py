"""Contrastive decoding and ensembles: their definitions, and where they are something simpler."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies.contrastive_decoding import ContrastiveDecoding, contrast
from sardonyx.runtime.strategies.ensemble import Ensemble, arithmetic, geometric
from toys import Player, ToyAnswer, decoded, drawn, greedily, logprobs, request, toy

SEEDS = st.integers(0, 10_000)
WARM = SamplingParams(temperature=0.9)
ROWS = st.lists(st.floats(-30, 30, width=16), min_size=5, max_size=5).map(np.float32)
PROMPT = ToyAnswer([1, 2, 3], 8, frozenset({0}))


@given(ROWS, ROWS, st.floats(0.01, 1))
def test_the_contrast_of_what_is_plausible(expert: np.ndarray, amateur: np.ndarray, alpha: float) -> None:
    p, q = logprobs(expert), logprobs(amateur)
    kept = np.isfinite(contrast(expert, amateur, alpha))
    clearly = np.abs(p - p.max() - np.log(alpha)) > 1e-4
    assert np.array_equal(kept[clearly], (p >= p.max() + np.log(alpha))[clearly])
    np.testing.assert_allclose(
        logprobs(contrast(expert, amateur, alpha)[kept]), logprobs((p - q)[kept]), atol=1e-4
    )


@given(ROWS, st.floats(0.01, 1))
def test_equal_models_leave_what_is_plausible_undecided(row: np.ndarray, alpha: float) -> None:
    logits = contrast(row, row, alpha)
    assert set(logits) <= {0, -np.inf}
    assert logits[row.argmax()] == 0


@given(SEEDS)
def test_contrastive_decoding_feeds_both_models_the_same_text(seed: int) -> None:
    expert, amateur = toy(9, seed), toy(9, seed + 1)
    tokens = decoded(ContrastiveDecoding(amateur=None, plausibility=0.2), expert, amateur, answer=PROMPT)
    text = list(PROMPT.sequence)
    for token in tokens:
        p, q = logprobs(expert(text)), logprobs(amateur(text))
        assert token == int(np.where(p >= p.max() + np.log(0.2), p - q, -np.inf).argmax())
        text.append(token)


@given(SEEDS, st.sets(st.integers(0, 8), min_size=1))
def test_what_is_forbidden_sets_no_bar_for_the_plausible(seed: int, allowed: set[int]) -> None:
    """The end neither, as long as an answer is too short."""
    expert, amateur = toy(9, seed), toy(9, seed + 1)
    options = ContrastiveDecoding(amateur=None, plausibility=0.5)
    params = SamplingParams(allowed_token_ids=(*allowed,), min_tokens=0 if allowed == {0} else 5)
    tokens = decoded(options, expert, amateur, answer=PROMPT, params=params)
    text = list(PROMPT.sequence)
    for place, token in enumerate(tokens):
        left = allowed - ({0} if place < params.min_tokens else set())
        p, q = (np.where(np.isin(range(9), [*left]), logprobs(m(text)), -np.inf) for m in (expert, amateur))
        kept = np.flatnonzero(p >= p.max() + np.log(0.5))
        assert token == kept[(p[kept] - q[kept]).argmax()]
        text.append(token)


@given(SEEDS)
def test_only_the_plausible_is_said(seed: int) -> None:
    """With nothing else plausible the expert speaks alone."""
    expert, amateur = toy(9, seed), toy(9, seed + 1)
    options = ContrastiveDecoding(amateur=None, plausibility=1.0)
    assert decoded(options, expert, amateur, answer=PROMPT, params=WARM) == greedily(expert, PROMPT)


@given(st.lists(ROWS, min_size=1, max_size=4), st.data())
def test_means(rows: list[np.ndarray], data: st.DataObject) -> None:
    weights = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=len(rows), max_size=len(rows))))
    weights /= weights.sum()
    p = np.array([np.exp(logprobs(row)) for row in rows])
    np.testing.assert_allclose(np.exp(logprobs(arithmetic(rows, weights))), weights @ p, atol=1e-5)
    product = np.prod(p ** weights[:, None], axis=0)
    np.testing.assert_allclose(np.exp(logprobs(geometric(rows, weights))), product / product.sum(), atol=1e-5)


@given(SEEDS, st.sampled_from(["arithmetic", "geometric"]), st.sampled_from([SamplingParams(), WARM]))
def test_one_opinion_is_that_models(seed: int, mean: str, params: SamplingParams) -> None:
    models = [toy(9, seed + i) for i in range(3)]
    for i, model in enumerate(models):
        weights = tuple(float(i == j) for j in range(3))
        alone = Ensemble(models=(None, None), weights=weights, mean=mean)
        assert decoded(alone, *models, answer=PROMPT, params=params) == drawn(model, PROMPT, params)
        same = Ensemble(models=(None, None), mean=mean)
        assert decoded(same, model, model, model, answer=PROMPT, params=params) == drawn(
            model, PROMPT, params
        )


def test_every_model_is_fed_each_token_once() -> None:
    player = Player([toy(9, i) for i in range(3)])
    player.run(Ensemble(models=(None, None)).start(request(ToyAnswer([1] * 20, 5))))
    assert player.fed == 3 * (20 + 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ()}, r"models=\(\) is out of range: it must be one model at least"),
        ({"models": (1,), "weights": (1,)}, "it must be 2 numbers, one above 0 at least"),
        ({"models": (1,), "weights": (0, 0)}, "it must be 2 numbers, one above 0 at least"),
        ({"models": (1,), "weights": (-1, 2)}, "it must be at least 0"),
        ({"models": (1,), "mean": "harmonic"}, "it must be one of arithmetic, geometric"),
    ],
)
def test_ensembles_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Ensemble(**options)


def test_one_answer_each() -> None:
    for options in (ContrastiveDecoding(amateur=None), Ensemble(models=(None,))):
        with pytest.raises(RequestError, match="gives one answer, not n=2"):
            options.start(request(ToyAnswer([1]), ToyAnswer([1])))
    with pytest.raises(RequestError, match="plausibility=0 is out of range: it must be above 0"):
        ContrastiveDecoding(amateur=None, plausibility=0)
