"""What parameters do to an answer as a whole, on the scripted backend: words, ends, log probabilities."""

import math
from typing import Any

import numpy as np
import pytest

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies import Feed
from scripted_llm import VOCABULARY, scripted_llm

END = VOCABULARY.index("<end>")


def said(llm: LLM, text: str, **options: Any) -> str:
    return llm.chat([{"role": "user", "content": text}], SamplingParams(**options)).text


def test_a_bad_word_is_not_written_whole() -> None:
    llm = scripted_llm()
    assert said(llm, "a mug of mud") == "a mug of mud"
    answer = said(llm, "a mug of mud", bad_words=("mud",), max_tokens=12)
    assert answer.startswith("a mug of mu")
    assert "mud" not in answer


def test_an_answer_has_its_fewest_tokens_in_spite_of_ends_and_stop_strings() -> None:
    llm = scripted_llm()
    messages = [{"role": "user", "content": "abcabc"}]
    assert llm.chat(messages, SamplingParams(stop=("c",))).text == "ab"
    assert llm.chat(messages, SamplingParams(stop=("c",), min_tokens=4)).text == "abcab"
    completion = llm.chat(
        messages, SamplingParams(min_tokens=9, max_tokens=9, stop_token_ids=(VOCABULARY.index(" "),))
    )
    assert len(completion.tokens) == 9
    assert completion.text.startswith("abcabc")
    assert not {END, VOCABULARY.index(" ")} & {*completion.tokens}
    assert len(llm.chat(messages, SamplingParams(min_tokens=7)).tokens) == 8  # the end comes when it may


def test_a_first_token_can_be_forced() -> None:
    assert said(scripted_llm(), "abc", forced_bos_token_id=VOCABULARY.index("z"), max_tokens=1) == "z"


def test_the_prompt_does_not_count_as_said() -> None:
    """The parrot says what the prompt holds; only what the answer holds is discouraged."""
    llm = scripted_llm()
    assert said(llm, "abcd", presence_penalty=5.0) == "abcd"
    assert said(llm, "abad", presence_penalty=5.0, max_tokens=3) != "aba"
    assert said(llm, "abcd", presence_penalty=5.0, profile="llama.cpp", max_tokens=1) != "a"


def test_log_probabilities_come_with_the_answer_if_asked_for() -> None:
    llm = scripted_llm()
    plain = llm.generate("abc", SamplingParams(max_tokens=3))
    assert (plain.logprobs, plain.prompt_logprobs) == (None, None)
    answer = llm.generate("abc", SamplingParams(max_tokens=3, logprobs=2, prompt_logprobs=0))
    assert answer.logprobs is not None
    assert answer.prompt_logprobs is not None
    rows = [
        row[0]
        for (row,) in llm.logits(
            Feed([[*llm.encode("abc")]]), Feed([answer.tokens[:1]]), Feed([answer.tokens[1:2]])
        )
    ]
    for token, row, noted in zip(answer.tokens, rows, answer.logprobs, strict=True):
        p = np.exp(row) / np.exp(row).sum()
        assert noted.token == token
        assert noted.logprob == pytest.approx(math.log(p[token]), abs=1e-5)
        assert len(noted.top) == 2
        assert noted.top[0] == (token, noted.logprob)


def test_a_stream_left_early_has_the_log_probabilities_so_far() -> None:
    stream = scripted_llm().stream("abc", SamplingParams(max_tokens=20, logprobs=0))
    for _ in zip(range(3), stream, strict=False):
        pass
    completion = stream.completion
    assert completion.logprobs is not None
    assert [noted.token for noted in completion.logprobs] == [*completion.tokens]


@pytest.mark.parametrize("text", ["a", "ab", "abc" * 50])
def test_log_probabilities_of_a_prompt_are_those_of_its_logits(text: str) -> None:
    """However many pieces it is fed in; the answer is the same."""
    llm = scripted_llm()
    ids = llm.encode(text)
    answer = llm.generate(text, SamplingParams(max_tokens=4, prompt_logprobs=1))
    assert answer.tokens == llm.generate(text, SamplingParams(max_tokens=4)).tokens
    assert answer.prompt_logprobs is not None
    first, *others = answer.prompt_logprobs
    assert first is None
    assert [noted.token for noted in others if noted] == ids[1:]
    ((rows,),) = llm.logits(Feed([ids], wanted=len(ids)))
    for token, row, noted in zip(ids[1:], rows[:-1], others, strict=True):
        assert noted is not None
        assert noted.logprob == pytest.approx(row[token] - math.log(np.exp(row).sum()), abs=1e-5)
        assert noted.top[0].token == row.argmax()


def test_what_the_vocabulary_does_not_hold_is_refused_before_anything_is_run() -> None:
    with pytest.raises(
        RequestError, match=f"suppress_tokens: token 999 is outside the vocabulary of {len(VOCABULARY)}"
    ):
        scripted_llm().stream("abc", SamplingParams(suppress_tokens=(999,)))


def test_bans_that_leave_nothing_end_the_answer_with_their_names() -> None:
    llm = scripted_llm()
    only = VOCABULARY.index("a")
    with pytest.raises(RequestError, match="no token is left by no_repeat_ngram_size, allowed_token_ids"):
        llm.generate("b", SamplingParams(allowed_token_ids=(only,), no_repeat_ngram_size=1))
