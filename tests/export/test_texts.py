"""Texts as windows: the project's own, and a user's."""

import re
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from sardonyx.export.texts import (
    DEFAULT_WINDOWS,
    WIDTH,
    conversations,
    own_texts,
    texts_of,
)
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.manifest import Tokens
from scripted_llm import scripted_llm

KINDS = {"chat", "code", "languages", "numbers", "prose"}


def with_bos(llm: LLM, *, added: bool) -> LLM:
    """The parrot, with a token that its tokenizer does or does not put in front of every text."""
    from tokenizers.processors import TemplateProcessing

    if added:
        llm.tokenizer._inner.post_processor = TemplateProcessing(
            single="<system> $A", special_tokens=[("<system>", 1)]
        )
    llm.manifest = msgspec.structs.replace(llm.manifest, tokens=Tokens([0], bos=1))
    return llm


def test_the_projects_own_texts_are_of_every_kind_and_of_some_length() -> None:
    llm = scripted_llm(context=1024)
    texts, thorough = own_texts(llm), own_texts(llm, thorough=True)
    assert set(texts.windows) == set(thorough.windows) == KINDS
    assert all(len(window) == WIDTH for windows in thorough.windows.values() for window in windows)
    for kind, windows in texts.windows.items():
        assert len(windows) == DEFAULT_WINDOWS
        assert windows[0] == thorough.windows[kind][0]
        assert windows[-1] == thorough.windows[kind][-1]
        assert all(window in thorough.windows[kind] for window in windows)
    assert thorough.count > texts.count == DEFAULT_WINDOWS * len(KINDS)


def test_windows_follow_on_each_other_and_leave_no_more_than_one_out(tmp_path: Path) -> None:
    llm = scripted_llm(context=64)
    text = "the quick brown fox jumps over the lazy dog. " * 4
    (tmp_path / "a.txt").write_text(text)
    windows = texts_of(llm, [tmp_path / "a.txt"]).windows["a.txt"]
    joined = [token for window in windows for token in window]
    assert joined == llm.tokenizer.encode(text)[: len(joined)]
    assert len(text) - 64 < len(joined) == 64 * len(windows)


def test_a_models_first_token_begins_every_window(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 200)
    texts = texts_of(with_bos(scripted_llm(context=64), added=True), [tmp_path / "a.txt"])
    assert [window[0] for window in texts.windows["a.txt"]] == [1, 1, 1]
    assert all(1 not in window[1:] for window in texts.windows["a.txt"])
    assert "the first of them the beginning-of-text token" in texts.convention
    unasked = texts_of(with_bos(scripted_llm(context=64), added=False), [tmp_path / "a.txt"])
    assert all(1 not in window for window in unasked.windows["a.txt"])
    assert "beginning-of-text" not in unasked.convention


def test_chat_goes_through_the_template() -> None:
    llm, plain = scripted_llm(context=1024), scripted_llm(template=None, context=1024)
    assistant = llm.tokenizer.encode("<assistant>")[0]
    chat = own_texts(llm, thorough=True).windows["chat"]
    assert any(assistant in window for window in chat)
    assert not any(assistant in window for window in own_texts(plain, thorough=True).windows["chat"])
    assert own_texts(llm).windows["prose"] == own_texts(plain).windows["prose"]
    assert "the model's own template" in own_texts(llm).convention
    assert "no template" in own_texts(plain).convention


def test_conversations_are_told_apart_by_their_marks_alone() -> None:
    text = "[chat]\n[user]\nHi\n[assistant]\nDear\n\n[Your name]\n[user] said\n[chat]\n[user]\nBye\n"
    assert conversations(text) == [
        [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Dear\n\n[Your name]\n[user] said"},
        ],
        [{"role": "user", "content": "Bye"}],
    ]


def test_the_projects_own_chats_take_turns() -> None:
    text = files("sardonyx.export").joinpath("texts/chat.txt").read_text("utf-8")
    for chat in conversations(text):
        assert [message["role"] for message in chat] == ["user", "assistant"] * (len(chat) // 2)
        assert all(message["content"] for message in chat)


def test_the_projects_own_texts_do_not_repeat_themselves() -> None:
    """Lines of prose and chat come once: repetition would be predicted, not understood."""
    for kind in ("prose", "languages", "chat"):
        text = files("sardonyx.export").joinpath(f"texts/{kind}.txt").read_text("utf-8")
        long = [line for line in text.splitlines() if len(line) > 40]
        assert len(set(long)) == len(long)
        sentences = [s for s in re.split(r"[.!?]\s", text) if len(s) > 50]
        assert len(set(sentences)) == len(sentences)


def test_equal_tokens_have_equal_names(tmp_path: Path) -> None:
    llm = scripted_llm(context=64)
    assert own_texts(llm).sha256 == own_texts(scripted_llm(context=64)).sha256
    assert own_texts(llm).sha256 != own_texts(llm, thorough=True).sha256
    assert own_texts(llm).sha256 != own_texts(scripted_llm(context=65)).sha256


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b" \n\t ", "empty"),
        (b"abc\xff", r"not text in UTF-8 \(byte 3\)"),
        (b"PK\0\0" * 50, "null bytes"),
        (b"short", "5 tokens, less than a window of 64; give a longer text"),
    ],
)
def test_what_cannot_be_measured_on(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    with pytest.raises(RequestError, match=said) as caught:
        texts_of(scripted_llm(context=64), [path])
    assert str(caught.value).startswith(f"{path}: ")


def test_texts_that_are_not_there_or_not_apart(tmp_path: Path) -> None:
    llm = scripted_llm(context=64)
    with pytest.raises(RequestError, match="cannot be read"):
        texts_of(llm, [tmp_path / "nothing"])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.txt").write_text("x" * 100)
    with pytest.raises(RequestError, match="the same name"):
        texts_of(llm, [tmp_path / "a" / "same.txt", tmp_path / "b" / "same.txt"])


def test_a_context_too_short_to_measure_on() -> None:
    with pytest.raises(RequestError, match="a context of 31 is too short to measure on: 32 is the least"):
        own_texts(scripted_llm(context=31))
