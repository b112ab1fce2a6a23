"""Log-probabilities against the definition, ties and impossible tokens included."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logit_rows import everything, ranked, rows, softmax
from sardonyx.runtime.logits import LogprobLog, Row
from sardonyx.runtime.logits.logprobs import token_logprobs


@given(rows, st.integers(0, 50), st.integers(0, 99))
def test_a_token_and_its_alternatives(row: Row, top: int, token: int) -> None:
    token %= len(row)
    noted = token_logprobs(everything(row), token, top)
    p = softmax(row)
    expected = [t for t in ranked(row) if row[t] > -math.inf][:top]
    assert [other.token for other in noted.top] == expected
    assert math.exp(noted.logprob) == pytest.approx(p[token], abs=1e-6)
    assert [math.exp(other.logprob) for other in noted.top] == pytest.approx([p[t] for t in expected])
    if token in expected:
        assert noted.logprob == noted.top[expected.index(token)].logprob


def test_who_is_no_candidate_has_no_probability() -> None:
    few = everything(np.float32([0, 1, 2, 3])).keep(np.array([1, 3]))
    assert token_logprobs(few, 2, 0).logprob == -math.inf
    assert token_logprobs(few, 9, 0).logprob == -math.inf
    assert token_logprobs(few, 3, 1).top[0].token == 3


def test_a_log_is_by_position() -> None:
    log = LogprobLog(0)
    row = np.float32([0, 1])
    log.note_rows(5, [0, 1, 1], [row, row, row])
    fork = log.fork()
    fork.note(6, 0, everything(row))
    assert [noted.token for noted in log.read(5, 8)] == [0, 1, 1]
    assert [noted.token for noted in fork.read(5, 8)] == [0, 0, 1]
    assert log.read(6, 6) == ()
    assert [noted.token for noted in log.read(7, 9)] == [1]
    assert log.read(4, 8) == ()  # what is not known moves nothing to another place
