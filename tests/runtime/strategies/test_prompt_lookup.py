"""Prompt lookup loses nothing: token for token what is drawn one by one, in fewer passes."""

from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.strategies.prompt_lookup import PromptLookup, continuation
from toys import GREEDY, Player, ToyAnswer, drawn, request, toy

PARAMS = st.sampled_from(
    [
        GREEDY,
        SamplingParams(temperature=0.8),
        SamplingParams(temperature=1.2, top_p=0.9, repetition_penalty=1.3),
        SamplingParams(temperature=1.0, mirostat=2, mirostat_tau=2.0),
        SamplingParams(
            temperature=0.7, dry_multiplier=0.8, dry_sequence_breakers=((0,),), no_repeat_ngram_size=4
        ),
        SamplingParams(temperature=1.0, adaptive_target=0.4),
        SamplingParams(temperature=0.9, xtc_probability=0.5, min_tokens=3),
    ]
)
TEXTS = st.lists(st.integers(0, 3), min_size=1, max_size=30)


@given(TEXTS, PARAMS, st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 4))
def test_token_for_token_what_is_drawn_one_by_one(
    prompt: list[int], params: SamplingParams, seed: int, length: int, ngram: int
) -> None:
    model = toy(4, seed)
    answer = ToyAnswer(prompt, 20, frozenset({3}))
    expected = drawn(model, answer, params, seed)
    options = PromptLookup(prompt_lookup_num_tokens=length, max_matching_ngram_size=ngram)
    Player([model]).run(options.start(request(answer, params=params, seed=seed)))
    assert answer.tokens == expected
    assert 0 <= answer.accepted_tokens <= answer.draft_tokens
    assert answer.accepted_tokens < len(expected)  # the first was not guessed


@given(TEXTS, st.integers(1, 5), st.integers(0, 8))
def test_a_draft_is_what_followed_the_longest_match(text: list[int], ngram: int, length: int) -> None:
    found = continuation(text, ngram, length)
    assert len(found) <= length
    for size in range(min(ngram, len(text) - 1), 0, -1):
        followed = [
            text[i + size : i + size + length]
            for i in range(len(text) - size)
            if text[i : i + size] == text[-size:]
        ]
        if followed:
            whole = [draft for draft in followed if len(draft) == length]
            assert found == (whole[-1] if whole else followed[0])
            return
    assert found == []


def repeating(period: int) -> object:
    """A model that says the same few words over and over."""

    def logits(tokens: Sequence[int]) -> np.ndarray:
        return np.eye(period, dtype=np.float32)[(tokens[-1] + 1) % period]

    return logits


def test_text_that_repeats_takes_few_passes() -> None:
    model, answer = repeating(5), ToyAnswer([0, 1, 2, 3, 4, 0], 40)
    player = Player([model])
    player.run(PromptLookup(prompt_lookup_num_tokens=9).start(request(answer)))
    assert answer.tokens == [(1 + i) % 5 for i in range(40)]
    assert player.passes < 40 / 4
    assert (
        answer.draft_tokens == answer.accepted_tokens == 40 - player.passes
    )  # all right, one more each time


def test_drafts_shrink_where_text_does_not_repeat() -> None:
    """A model that never says what was said before costs little more than its own tokens."""

    def logits(tokens: Sequence[int]) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[(len(tokens) ** 2 // 3) % 4]

    player, answer = Player([logits]), ToyAnswer([0, 1, 2, 3] * 4, 60)
    player.run(PromptLookup(prompt_lookup_num_tokens=10).start(request(answer)))
    assert player.fed < 16 + 60 * 3


def test_nothing_is_fed_behind_the_last_token() -> None:
    """As it might have no room in the context."""
    for limit in range(1, 12):
        player, answer = Player([repeating(3)]), ToyAnswer([0, 1, 2, 0], limit)
        strategy = PromptLookup(prompt_lookup_num_tokens=8).start(request(answer))
        given, most, text = None, 0, 0
        try:
            while True:
                feed = next(strategy) if given is None else strategy.send(given)
                text = (feed.keep[0][1] if feed.keep else text) + len(feed.tokens[0])
                most = max(most, text)
                given = [np.array([player.models[0](answer.sequence)] * feed.wanted)]
        except StopIteration:
            pass
        assert most <= 4 + limit - 1
