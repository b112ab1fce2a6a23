"""Stop strings against the obvious definition: read the whole text, find the match that ends first."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sardonyx.runtime.stop import StopStrings

letters = st.text("abc", max_size=24)
stop_sets = st.lists(st.text("abc", min_size=1, max_size=5), max_size=4).map(tuple)


def obvious(text: str, stops: tuple[str, ...]) -> tuple[str, str | None]:
    """What may be shown of a complete text, and the stop string in it."""
    for end in range(len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            longest = max(ended, key=len)
            return text[: end - len(longest)], longest
    return text, None


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(places)]


@given(letters, stop_sets, st.lists(st.integers(0, 100), max_size=8))
@example("abcd"[:3], ("bc", "abc"), [1, 2])
def test_any_cutting_shows_what_the_definition_shows(
    text: str, stops: tuple[str, ...], cuts: list[int]
) -> None:
    stream = StopStrings(stops)
    shown = "".join(stream.push(piece) for piece in pieces(text, cuts)) + stream.flush()
    assert (shown, stream.matched) == obvious(text, stops)


@given(letters, stop_sets)
def test_only_a_possible_beginning_is_held_back(text: str, stops: tuple[str, ...]) -> None:
    stream = StopStrings(stops)
    shown = ""
    for end, letter in enumerate(text, 1):
        shown += stream.push(letter)
        if stream.matched is not None:
            return
        held = text[len(shown) : end]
        assert shown + held == text[:end]
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)
        longer = text[max(len(shown) - 1, 0) : end]  # one letter more would not begin a stop string
        assert not shown or not any(stop.startswith(longer) for stop in stops)


def test_after_a_match_nothing_is_shown() -> None:
    stream = StopStrings(("END",))
    assert stream.push("all EN") == "all "
    assert stream.push("D and more") == ""
    assert stream.matched == "END"
    assert stream.push("yet more") == ""
    assert stream.flush() == ""


def test_without_stop_strings_all_passes_at_once() -> None:
    stream = StopStrings(())
    assert stream.push("text") == "text"
    assert stream.matched is None


def test_the_end_of_the_text_releases_what_was_held() -> None:
    stream = StopStrings(("\nUser:",))
    assert stream.push("fine\nUs") == "fine"
    assert stream.flush() == "\nUs"
    assert stream.flush() == ""


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopStrings(("a", ""))
