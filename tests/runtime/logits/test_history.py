"""What is counted along with a growing, shrinking, changing text is what counting it anew gives."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sardonyx.runtime.logits.dry import REPLAYED, Repeats
from sardonyx.runtime.logits.history import History, Ngrams, Tally

token = st.integers(0, 3)
BREAKERS = [(3,), (2, 2)]


def common_end(text: Sequence[int], place: int) -> int:
    """How many tokens before a place are the same as the last ones of the text."""
    length = 0
    while length < place and text[place - 1 - length] == text[-1 - length]:
        length += 1
    return length


def last_break(text: Sequence[int]) -> int:
    ends = [
        e for e in range(len(text) + 1) for b in BREAKERS if e >= len(b) and tuple(text[e - len(b) : e]) == b
    ]
    return max(ends, default=0)


class Following(RuleBasedStateMachine):
    """Text comes, goes, and is replaced, as when drafts are rejected and beams are left."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[int] = []
        self.history = History(3)
        self.all = self.history.watch(Tally())
        self.answer = self.history.watch(Tally(3))
        self.window = self.history.watch(Tally(2, 5))
        self.pairs = self.history.watch(Ngrams(2))
        self.triples = self.history.watch(Ngrams(3))
        self.singles = self.history.watch(Ngrams(1))
        self.repeats = self.history.watch(Repeats(BREAKERS))
        self.near_repeats = self.history.watch(Repeats(BREAKERS, 8))

    @rule(more=st.lists(token, min_size=1, max_size=6))
    def grow(self, more: list[int]) -> None:
        self.text += more

    @rule(more=st.lists(token, min_size=30, max_size=90))
    def grow_much(self, more: list[int]) -> None:
        self.text += more

    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        del self.text[data.draw(st.integers(0, len(self.text))) :]

    @rule(data=st.data(), other=token)
    def change_one(self, data: st.DataObject, other: int) -> None:
        if self.text:
            self.text[data.draw(st.integers(0, len(self.text) - 1))] = other

    @rule(text=st.lists(token, max_size=12))
    def replace(self, text: list[int]) -> None:
        self.text = text

    @rule()
    def repeat(self) -> None:
        self.text += self.text[-2 * REPLAYED :]

    @invariant()
    def what_is_counted_is_right(self) -> None:
        self.history.follow(self.text.copy())
        assert self.history.tokens == self.text
        assert self.history.generated == len(self.text) - 3
        for tally, stretch in (
            (self.all, self.text),
            (self.answer, self.text[3:]),
            (self.window, self.text[max(2, len(self.text) - 5) :]),
        ):
            assert dict(zip(tally.ids.tolist(), tally.counts.tolist(), strict=True)) == Counter(stretch)
        for size, ngrams in ((1, self.singles), (2, self.pairs), (3, self.triples)):
            last = self.text[len(self.text) - size + 1 :]
            followers = {
                self.text[i + size - 1]
                for i in range(len(self.text) - size + 1)
                if self.text[i : i + size - 1] == last
            }
            assert {*ngrams.after(self.text)} == (followers if len(self.text) >= size - 1 else set())

    @invariant()
    def repeats_are_right(self) -> None:
        self.history.follow(self.text.copy())
        for repeats, text in ((self.repeats, self.text), (self.near_repeats, self.text[-8:])):
            limit = len(self.text) - last_break(self.text)
            for least in (1, 3):
                expected = sorted(
                    (min(common_end(text, place), limit), text[place])
                    for place in range(1, len(text))
                    if min(common_end(text, place), limit) >= least
                )
                tokens, lengths = repeats.continued(least)
                assert sorted(zip(lengths.tolist(), tokens.tolist(), strict=True)) == expected
                assert np.all(np.diff(lengths) >= 0)


TestFollowing = Following.TestCase


@given(st.lists(token), st.lists(token))
def test_an_array_is_followed_as_a_list(before: list[int], text: list[int]) -> None:
    history = History()
    history.follow(before)
    history.follow(np.array(text, np.int64))
    assert history.tokens == text
    assert all(type(token) is int for token in history.tokens)


def test_only_the_difference_is_passed_on() -> None:
    class Counting:
        came = went = 0

        def push(self, tokens: Sequence[int]) -> None:
            self.came += 1

        def pop(self, tokens: Sequence[int]) -> None:
            self.went += 1

    history = History()
    counting = history.watch(Counting())
    text = list(range(1000))
    history.follow(text)
    history.follow([*text, 1])
    assert (counting.came, counting.went) == (1001, 0)
    history.follow([*text[:990], 7, 8])
    assert (counting.came, counting.went) == (1003, 11)
