"""Classifier-free guidance: its definition, and the scales at which it is something simpler."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies.guidance import Guidance, guided
from toys import ToyAnswer, decoded, drawn, logprobs, request, toy

SEEDS = st.integers(0, 10_000)
WARM = SamplingParams(temperature=0.9, top_p=0.95)
ROWS = st.lists(st.floats(-60, 60, width=16), min_size=5, max_size=5).map(np.float32)


@given(ROWS, ROWS, st.floats(-3, 10))
def test_log_probabilities_are_mixed_as_the_paper_has_it(c: np.ndarray, u: np.ndarray, scale: float) -> None:
    expected = logprobs(u) + scale * (logprobs(c) - logprobs(u))
    given = logprobs(guided(c, u, scale)) - logprobs(expected)
    np.testing.assert_allclose(given, 0, atol=1e-3)


@given(ROWS, ROWS, st.floats(-3, 10))
def test_exact_at_the_ends_and_between_equals(c: np.ndarray, u: np.ndarray, scale: float) -> None:
    assert np.array_equal(guided(c, u, 1.0), c)
    assert np.array_equal(guided(c, u, 0.0), u)
    assert np.array_equal(guided(c, c, scale), c)


@given(SEEDS)
def test_one_is_the_prompt_zero_is_the_negative_prompt(seed: int) -> None:
    model, answer, negative = toy(9, seed), ToyAnswer([1, 2, 3], 8, frozenset({0})), [4, 5]
    for params in (SamplingParams(), WARM):

        def answered(scale: float, prompt: list[int] | None, params: SamplingParams = params) -> list[int]:
            options = Guidance(guidance_scale=scale, negative_prompt=prompt)
            return decoded(options, model, answer=answer, params=params, seed=seed)

        plain = drawn(model, answer, params, seed)
        assert answered(1.0, negative) == plain
        for scale in (0.0, 1.5, 7.0):
            assert answered(scale, answer.sequence) == plain
        # the same length, so that positions, and with them the noise, are the same
        assert answered(0.0, [4, 5, 6]) == drawn(model, ToyAnswer([4, 5, 6], 8, frozenset({0})), params, seed)


def test_both_rows_advance() -> None:
    model, answer = toy(9, 3), ToyAnswer([1, 2, 3], 8)
    tokens = decoded(Guidance(guidance_scale=2.5, negative_prompt=[7]), model, answer=answer)
    for length in range(8):
        told, led = model([1, 2, 3, *tokens[:length]]), model([7, *tokens[:length]])
        assert tokens[length] == int((logprobs(led) + 2.5 * (logprobs(told) - logprobs(led))).argmax())
    by_default = decoded(Guidance(guidance_scale=2.5), model, answer=answer)
    assert by_default == decoded(Guidance(guidance_scale=2.5, negative_prompt=[3]), model, answer=answer)


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(RequestError, match="guidance_scale=inf is out of range: it must be finite"):
        Guidance(guidance_scale=float("inf"))
    with pytest.raises(RequestError, match="the negative prompt is empty"):
        Guidance(guidance_scale=2.0, negative_prompt=[]).start(request(ToyAnswer([1])))
    with pytest.raises(RequestError, match="has 995 tokens and the answer up to 8, but the model holds 1000"):
        Guidance(guidance_scale=2.0, negative_prompt=[1] * 995).start(request(ToyAnswer([1])))
    with pytest.raises(RequestError, match="guidance gives one answer, not n=2"):
        Guidance(guidance_scale=2.0).start(request(ToyAnswer([1]), ToyAnswer([1])))
