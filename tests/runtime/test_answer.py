"""One answer: which tokens end it, what text it shows and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Inner
from tokenizers import decoders, models

from sardonyx.runtime.answer import Stopwatch, TextAnswer, Usage
from sardonyx.runtime.params import SamplingParams
from sardonyx.runtime.tokenizer import BYTE_OF, Tokenizer
from scripted_llm import VOCABULARY, scripted_llm

LETTERS = scripted_llm().tokenizer
END = VOCABULARY.index("<end>")


def ids(text: str) -> list[int]:
    return [VOCABULARY.index(letter) for letter in text]


def make(room: int = 100, tokenizer: Tokenizer = LETTERS, prompt: str = "p", **params: object) -> TextAnswer:
    return TextAnswer(
        ids(prompt),
        SamplingParams(**params),
        tokenizer,
        room,
        Stopwatch(lambda: 0.0),  # type: ignore[arg-type]
    )


def feed(answer: TextAnswer, tokens: list[int]) -> list[str]:
    """The pieces of text as they come, until the answer ends or the tokens do."""
    pieces = []
    for token in tokens:
        going = answer.add(token)
        pieces.append(answer.fresh_text())
        assert going == (answer.finish_reason is None)
        if not going:
            break
    return pieces


@pytest.mark.parametrize(
    ("params", "said", "text", "taken", "reason"),
    [
        ({}, "abc", "abc", 3, None),
        ({"max_tokens": 2}, "abc", "ab", 2, "length"),
        ({"stop_token_ids": ids("b")}, "abc", "a", 2, "stop"),
        ({"stop": ("bc",)}, "abcd", "a", 3, "stop"),
        ({"stop": ("bc",), "max_tokens": 3}, "abcd", "a", 3, "stop"),
        ({"stop": ("bc",), "max_tokens": 2}, "abcd", "ab", 2, "length"),
        ({"stop": ("bc",), "stop_token_ids": ids("c")}, "abcd", "ab", 3, "stop"),
        ({"stop": ("xyz", "b")}, "abcd", "a", 2, "stop"),
    ],
)
def test_ends(params: dict[str, object], said: str, text: str, taken: int, reason: str | None) -> None:
    answer = make(**params)
    pieces = feed(answer, ids(said))
    completion = answer.completion
    assert (completion.text, completion.finish_reason) == (text, reason)
    assert "".join(pieces) == text
    assert completion.tokens == tuple(ids(said)[:taken])
    assert answer.sequence == ids("p" + said[:taken])


def test_the_context_ends_an_answer_too() -> None:
    answer = make(room=2, max_tokens=5)
    assert feed(answer, ids("abc")) == ["a", "b"]
    assert answer.finish_reason == "length"


def test_the_context_ends_even_an_answer_that_should_be_longer() -> None:
    answer = make(room=2, min_tokens=5)
    assert feed(answer, ids("abc")) == ["a", "b"]
    assert answer.finish_reason == "length"


def test_special_tokens_are_kept_but_not_shown() -> None:
    answer = make()
    assert feed(answer, [*ids("a"), END, *ids("b")]) == ["a", "", "b"]
    assert answer.completion.tokens == (*ids("a"), END, *ids("b"))


def test_text_that_may_become_a_stop_string_is_held_back_until_it_is_sure() -> None:
    answer = make(stop=("stop",))
    assert feed(answer, ids("no stool")) == ["n", "o", " ", "", "", "", "stoo", "l"]


def byte_tokenizer() -> Tokenizer:
    """Token n is the byte n, in a ByteLevel vocabulary."""
    inner = Inner(models.BPE(vocab=BYTE_OF, merges=[]))
    inner.decoder = decoders.ByteLevel()
    return Tokenizer(inner)


BYTES = byte_tokenizer()


def byte_answer(**params: object) -> TextAnswer:
    return make(tokenizer=BYTES, prompt="", **params)


def test_half_a_character_is_never_shown() -> None:
    assert feed(byte_answer(), list("é€🦜".encode())) == ["", "é", "", "", "€", "", "", "", "🦜"]


def test_a_character_cut_off_at_the_end_is_marked() -> None:
    answer = byte_answer(max_tokens=3)
    assert feed(answer, list("a🦜".encode())) == ["a", "", "�"]


def test_a_stop_string_of_many_bytes() -> None:
    answer = byte_answer(stop=("🦜",))
    assert feed(answer, list("a🐦🦜b".encode())) == ["a", "", "", "", "🐦", "", "", "", ""]
    assert answer.finish_reason == "stop"


@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=3), max_size=3), st.integers(1, 90))
def test_pieces_joined_are_the_text_up_to_the_first_end(said: str, stops: list[str], limit: int) -> None:
    answer = byte_answer(stop=stops, max_tokens=limit)
    pieces = feed(answer, list(said.encode()))
    if answer.finish_reason is None:
        answer.finish("cancelled")
        pieces.append(answer.fresh_text())
    shown = said.encode()[:limit].decode(errors="replace")
    ends = [(place + len(stop), place) for stop in stops if (place := shown.find(stop)) >= 0]
    assert "".join(pieces) == answer.text == (shown[: min(ends)[1]] if ends else shown)
    if ends:
        assert answer.finish_reason == "stop"


def test_cancelling_lets_out_what_was_held_back() -> None:
    answer = make(stop=("bcd",))
    feed(answer, ids("abc"))
    assert answer.completion.text == "a"
    answer.finish("cancelled")
    assert (answer.completion.text, answer.completion.finish_reason) == ("abc", "cancelled")


def test_an_end_is_final() -> None:
    answer = make(max_tokens=1)
    feed(answer, ids("a"))
    answer.finish("cancelled")
    assert answer.finish_reason == "length"


def test_a_stop_string_completed_by_the_last_flush_is_a_stop() -> None:
    """A decoder that looks at its neighbours shows its last text only at the end."""
    inner = Inner(models.WordLevel({"�": 0, "a": 1}, unk_token="a"))
    inner.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace("x", "y")])
    answer = TextAnswer([], SamplingParams(stop=("�",)), Tokenizer(inner), 9, Stopwatch(lambda: 0.0))
    assert feed(answer, [1, 0]) == ["a", ""]
    answer.finish("length")
    assert (answer.text, answer.finish_reason) == ("a", "stop")


def test_the_stopwatch(monkeypatch: pytest.MonkeyPatch) -> None:
    now, inside = 10.0, 5.0
    monkeypatch.setattr("sardonyx.runtime.answer.perf_counter", lambda: now)
    watch = Stopwatch(lambda: inside)
    answer = TextAnswer(ids("pq"), SamplingParams(), LETTERS, 9, watch)
    assert answer.completion.usage == Usage(2, 0, 0.0, 0.0, 0.0)
    now, inside = 12.0, 6.5
    answer.add(ids("a")[0])
    assert answer.completion.usage == Usage(2, 1, 2.0, 2.0, 1.5)
    now, inside = 15.0, 9.0
    answer.add(ids("b")[0])
    now, inside = 99.0, 88.0  # another request's
    assert answer.completion.usage == Usage(2, 2, 2.0, 5.0, 4.0)


@pytest.mark.parametrize(
    ("usage", "speed"),
    [
        (Usage(5, 11, 1.0, 3.0, 2.0), 5.0),
        (Usage(5, 1, 1.0, 1.0, 1.0), 0.0),
        (Usage(5, 0, 0.0, 0.0, 0.0), 0.0),
        (Usage(5, 2, 1.0, 1.0, 1.0), 0.0),
    ],
)
def test_tokens_per_second_is_of_the_tokens_after_the_first(usage: Usage, speed: float) -> None:
    assert usage.tokens_per_second == speed
