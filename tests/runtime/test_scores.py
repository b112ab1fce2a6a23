"""Scoring as a user meets it."""

import math
from itertools import product

import pytest

from sardonyx.runtime.backends.scripted import ScriptedProgram
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.scores import Scores, scored
from scripted_llm import VOCABULARY, scripted_llm
from toys import logprob, toy

MODEL = toy(len(VOCABULARY), 3)


@pytest.fixture
def llm() -> LLM:
    inner = scripted_llm(template=None)
    return LLM(inner.manifest, inner.tokenizer, None, ScriptedProgram(MODEL))


def test_log_probabilities_and_the_likeliest(llm: LLM) -> None:
    scores = llm.score("It is ", ["good", "bad", "so-so"])
    assert [candidate.text for candidate in scores.candidates] == ["good", "bad", "so-so"]
    for candidate in scores.candidates:
        assert list(candidate.tokens) == llm.encode(candidate.text)
        expected = logprob(MODEL, llm.encode("It is "), candidate.tokens)
        assert candidate.logprob == candidate.score == pytest.approx(expected, abs=1e-5)
    assert scores.best is max(scores.candidates, key=lambda candidate: candidate.logprob)
    assert sum(scores.probabilities) == pytest.approx(1)
    ratio = scores.probabilities[0] / scores.probabilities[1]
    assert math.log(ratio) == pytest.approx(scores.candidates[0].logprob - scores.candidates[1].logprob)


@pytest.mark.parametrize("length", [1, 2])
def test_everything_that_can_be_said_is_certain(llm: LLM, length: int) -> None:
    some = range(len(VOCABULARY)) if length == 1 else range(12)
    candidates = [list(tokens) for tokens in product(some, repeat=length)]
    total = sum(math.exp(c.logprob) for c in llm.score("a", candidates).candidates)
    if length == 1:
        assert total == pytest.approx(1, abs=1e-6)
    else:
        firsts = llm.score("a", [[token] for token in some]).candidates
        left_out = [[first.tokens[0], t] for first in firsts for t in range(12, len(VOCABULARY))]
        rest = sum(math.exp(c.logprob) for c in llm.score("a", left_out).candidates)
        assert total + rest == pytest.approx(sum(math.exp(c.logprob) for c in firsts), abs=1e-6)


def test_normalization(llm: LLM) -> None:
    texts = ["é", "🦜é", "abc"]
    plain = llm.score("a", texts).candidates
    by_token = llm.score("a", texts, normalize="tokens").candidates
    by_byte = llm.score("a", texts, normalize="bytes").candidates
    for one, tokens, size, count, length in zip(plain, by_token, by_byte, (1, 2, 3), (2, 6, 3), strict=True):
        assert one.logprob == tokens.logprob == size.logprob
        assert tokens.score == pytest.approx(one.logprob / count)
        assert size.score == pytest.approx(one.logprob / length)


def test_of_equals_the_first_is_best() -> None:
    first, second = scored("a", [1], [-1.0], None), scored("b", [2], [-1.0], None)
    assert Scores((first, second)).best is first
    assert Scores((first, second)).probabilities == (0.5, 0.5)


def test_what_cannot_be_scored_is_refused(llm: LLM) -> None:
    with pytest.raises(RequestError, match="there are no candidates; give one at least"):
        llm.score("a", [])
    with pytest.raises(RequestError, match="'' adds no token to the prompt"):
        llm.score("a", ["b", ""])
    with pytest.raises(RequestError, match="normalize='words' is out of range: it must be None, tokens"):
        llm.score("a", ["b"], normalize="words")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="the model holds 256"):
        llm.score("a" * 250, ["b" * 20, "c"])
    assert len(llm._model.arena) == 0
