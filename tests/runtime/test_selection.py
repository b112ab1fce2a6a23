"""One answer of several: by a measure, or by a vote."""

import math
import random
from decimal import Decimal
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sardonyx.runtime.answer import Completion, Usage
from sardonyx.runtime.backends.scripted import ScriptedProgram
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.logits import TokenLogprobs
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.selection import last_match, last_number, majority, mean_logprob, ranked
from scripted_llm import VOCABULARY, scripted_llm
from toys import toy

USAGE = Usage(1, 1, 0.0, 0.0, 0.0)


def completion(text: str, *logprobs: float) -> Completion:
    noted = tuple(TokenLogprobs(0, logprob, ()) for logprob in logprobs)
    return Completion(text, (0,) * len(logprobs), "stop", USAGE, noted)


def number(text: str) -> Fraction | None:
    """1,000 is 1000.0; words are nothing."""
    try:
        return Fraction(text.replace(",", ""))
    except ValueError:
        return None


def babbler() -> LLM:
    inner = scripted_llm(template=None)
    return LLM(inner.manifest, inner.tokenizer, None, ScriptedProgram(toy(len(VOCABULARY), 3, spread=3)))


def test_the_mean_not_the_sum() -> None:
    assert mean_logprob(completion("a", -1.0, -2.0)) == -1.5
    long, short = completion("a", *[-0.5] * 10), completion("b", -1.0)
    assert [one.text for one in ranked([short, long], mean_logprob)] == ["a", "b"]
    with pytest.raises(ValueError, match="ask for them with logprobs=0"):
        mean_logprob(completion("a"))


def test_of_equals_the_first_ranks_first() -> None:
    order = ranked([completion(text, -1.0) for text in "cab"], mean_logprob)
    assert [(one.text, one.score) for one in order] == [("c", -1.0), ("a", -1.0), ("b", -1.0)]
    assert [one.text for one in ranked(order, lambda one: -ord(one.text))] == ["a", "b", "c"]


def test_best_of_ranks_what_is_drawn() -> None:
    llm, params = babbler(), SamplingParams(temperature=1.0, seed=1, max_tokens=6)
    plain = llm.generate_n("a", 5, params)
    best = llm.best_of("a", 5, params)
    assert sorted(one.tokens for one in best) == sorted(one.tokens for one in plain)
    for one in best:
        model, text = toy(len(VOCABULARY), 3, spread=3), llm.encode("a")
        found = []
        for token in one.tokens:
            logits = model(text).astype(np.float64)
            found.append(logits[token] - np.log(np.exp(logits).sum()))
            text.append(token)
        assert one.score == pytest.approx(np.mean(found), abs=1e-5)
    assert [one.score for one in best] == sorted((one.score for one in best), reverse=True)
    shortest = llm.best_of("a", 5, params, scorer=lambda one: -len(one.text))[0]
    assert len(shortest.text) == min(len(one.text) for one in plain)


def test_best_of_n_has_the_distribution_of_a_maximum() -> None:
    """One token with a reward of its own: P(best of n is x) = F(x)^n - F(x-)^n. Another n fails the test."""
    logits = np.array([0.0, 1.0, 0.5, -0.3, 0.8], np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum()
    n, rounds, counts = 3, 1500, np.zeros(5)
    inner = scripted_llm(template=None)

    def script(tokens: object) -> np.ndarray:
        return np.concatenate([np.full(4, -np.inf), logits, np.full(len(VOCABULARY) - 9, -np.inf)])

    llm = LLM(inner.manifest, inner.tokenizer, None, ScriptedProgram(script))
    for seed in range(rounds):
        params = SamplingParams(temperature=1.0, seed=seed, max_tokens=1)
        best = llm.best_of("a", n, params, scorer=lambda one: one.tokens[0])[0]
        counts[best.tokens[0] - 4] += 1

    def chi_square(n: int) -> float:
        reach = np.concatenate([[0], np.cumsum(p)]) ** n
        expected = rounds * np.diff(reach)
        return float(((counts - expected) ** 2 / expected).sum())

    assert chi_square(n) < 36  # 4 degrees of freedom: exceeded less than once in a million
    assert chi_square(n - 1) > 40
    assert chi_square(n + 1) > 40


def test_the_majority_wins_whatever_it_is_written_like() -> None:
    given = [
        completion("1,000", -3.0),
        completion("7", -0.1),
        completion("1000.0", -2.0),
        completion("no idea", -0.1),
    ]
    consensus = majority(given, number)
    assert (consensus.value, consensus.votes, consensus.unparsed) == (1000, {1000: 2, 7: 1}, 1)
    assert consensus.completion is given[2]
    assert consensus.completions == tuple(given)


def test_ties() -> None:
    """To the likelier camp, then to the one found first."""
    assert majority([completion("1", -2.0), completion("2", -1.0)], number).value == 2
    assert majority([completion("3", -1.0), completion("2", -1.0)], number).value == 3
    assert list(majority([completion("1", -2.0), completion("2", -1.0)], number).votes) == [2, 1]


def test_nobody_votes() -> None:
    consensus = majority([completion("x", -1.0)] * 3, number)
    assert (consensus.value, consensus.completion, consensus.votes, consensus.unparsed) == (None, None, {}, 3)


@given(
    st.lists(st.tuples(st.sampled_from("0123x"), st.floats(-9, -0.1)), min_size=1, unique_by=lambda t: t[1]),
    st.integers(0, 1000),
)
def test_the_order_of_the_answers_does_not_matter(given: list[tuple[str, float]], seed: int) -> None:
    answers = [completion(text, logprob) for text, logprob in given]
    one = majority(answers, number)
    random.Random(seed).shuffle(answers)
    other = majority(answers, number)
    assert one.votes == other.votes
    means = {
        value: math.fsum(mean_logprob(a) for a in answers if number(a.text) == value) / count
        for value, count in one.votes.items()
    }
    if len({(count, means[value]) for value, count in one.votes.items()}) == len(one.votes):
        assert (one.value, one.completion) == (other.value, other.completion)
    assert sum(one.votes.values()) + one.unparsed == len(answers)


def test_self_consistency_votes_on_what_is_drawn() -> None:
    llm, params = babbler(), SamplingParams(temperature=1.0, seed=1, max_tokens=1)
    plain = llm.generate_n("a", 9, params)
    consensus = llm.self_consistency("a", 9, lambda text: text.isalpha(), params)
    counts = [sum(one.text.isalpha() is value for one in plain) for value in (True, False)]
    assert consensus.votes == {value: n for value, n in zip((True, False), counts, strict=True) if n}
    assert consensus.value is (counts[0] > counts[1])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 1,000", "1000.0"),
        ("it is -2.50.", "-2.5"),
        ("3-4", "4"),
        ("1 then 2, at last 3,", "3"),
        ("12,34", "34"),
        ("x1", "1"),
        ("٣", "3"),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number_is_the_same_however_it_is_written(text: str, number: str | None) -> None:
    assert last_number(text) == (None if number is None else Decimal(number))


def test_the_last_match_or_its_group() -> None:
    assert last_match("[ab]")("a b c") == "b"
    assert last_match("is (a|b)")("is a is b") == "b"
    assert last_match("is (a)?")("is ") is None
    assert last_match("x")("y") is None
    with pytest.raises(RequestError, match="'\\(' is no regular expression"):
        last_match("(")
