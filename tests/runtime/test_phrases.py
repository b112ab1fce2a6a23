"""Texts as the tokens that they may be written with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Inner
from tokenizers import decoders, models, pre_tokenizers

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.phrases import REMEMBERED, Phrases
from sardonyx.runtime.tokenizer import Tokenizer

PIECES = ["a", "b", "c", " ", "\n", "ab", " a", "c\n", "\n\n", "bc", " ab", "b\nc", ":", "a:"]


def tokenizer() -> Tokenizer:
    """Longest pieces of text first, as byte pairs would have them."""
    letters = {piece: number for number, piece in enumerate(PIECES)}
    merges = [
        (p[:cut], p[cut:])
        for p in PIECES
        for cut in range(1, len(p))
        if p[:cut] in letters and p[cut:] in letters
    ]
    inner = Inner(models.BPE(letters, merges))
    inner.pre_tokenizer = pre_tokenizers.Sequence([])
    inner.decoder = decoders.Fuse()
    return Tokenizer(inner)


def pieces(*words: str) -> tuple[int, ...]:
    return tuple(map(PIECES.index, words))


def resolved(**options: object) -> SamplingParams:
    return Phrases(tokenizer()).resolve(SamplingParams(**options))  # type: ignore[arg-type]


def test_a_word_is_banned_alone_and_behind_a_space() -> None:
    assert resolved(bad_words=("ab",)).bad_words == (pieces("ab"), pieces(" ab"))
    assert resolved(bad_words=("ab", (7, 8))).bad_words == (pieces("ab"), pieces(" ab"), (7, 8))
    assert resolved(bad_words=((7, 8),)).bad_words == ((7, 8),)


def test_a_word_of_no_tokens_cannot_be_banned() -> None:
    with pytest.raises(RequestError, match="'x' is made of no tokens"):
        resolved(bad_words=("x",))


def test_a_breaker_is_every_token_that_holds_it() -> None:
    params = resolved(dry_multiplier=1.0, dry_sequence_breakers=("\n",))
    held = [piece for piece in PIECES if "\n" in piece]
    assert params.dry_sequence_breakers == tuple(pieces(piece) for piece in held)


def test_a_long_breaker_may_begin_inside_a_token() -> None:
    params = resolved(dry_multiplier=1.0, dry_sequence_breakers=("ab:",))
    # "a" and " a" end with its first letter, "ab" and " ab" with its first two.
    assert {*params.dry_sequence_breakers} == {
        pieces("a", "b", ":"),
        pieces(" a", "b", ":"),
        pieces("ab", ":"),
        pieces(" ab", ":"),
    }


@given(st.sampled_from("ab\n:"), st.text("abc\n: ", max_size=12))
def test_a_text_that_ends_with_a_letter_ends_with_a_token_that_holds_it(breaker: str, before: str) -> None:
    params = resolved(dry_multiplier=1.0, dry_sequence_breakers=(breaker,))
    ids = tokenizer().encode(before + breaker, add_special_tokens=False)
    assert (ids[-1],) in params.dry_sequence_breakers


@given(st.text("abc\n: ", min_size=1, max_size=4))
def test_tokens_that_break_hold_the_breaker(breaker: str) -> None:
    params = resolved(dry_multiplier=1.0, dry_sequence_breakers=(breaker,))
    assert tuple(tokenizer().encode(breaker, add_special_tokens=False)) in params.dry_sequence_breakers
    for held in params.dry_sequence_breakers:
        assert isinstance(held, tuple)
        assert breaker in tokenizer().decode(held)


def test_nothing_is_done_for_who_does_not_ask() -> None:
    params = SamplingParams(temperature=1)
    assert Phrases(tokenizer()).resolve(params) is params


def test_not_everything_that_was_ever_asked_for_is_remembered() -> None:
    phrases = Phrases(tokenizer())
    for number in range(3 * REMEMBERED):
        breaker = "".join("ab"[number >> bit & 1] for bit in range(8))
        asked = SamplingParams(dry_multiplier=1.0, dry_sequence_breakers=(breaker,))
        assert phrases.resolve(asked) == phrases.resolve(asked)
        assert len(phrases._breakers) <= REMEMBERED
