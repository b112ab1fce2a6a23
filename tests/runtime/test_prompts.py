"""Prompts, and where a prompt ends if a text follows it."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tokenizers import Tokenizer as Inner
from tokenizers import decoders, models, pre_tokenizers, processors

from sardonyx.runtime.backends.scripted import scripted_manifest
from sardonyx.runtime.chat_template import ChatTemplate
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.prompts import Prompts
from sardonyx.runtime.tokenizer import Tokenizer

VOCAB = ["<s>", "a", "b", "c", "ab", "bc", "abc", "abab"]
TEXTS = st.text("abc", min_size=1, max_size=6)


def tokenizer(start: bool = False) -> Tokenizer:
    """Draws letters together wherever it can, and may put a token before every text."""
    merges = [("a", "b"), ("b", "c"), ("ab", "c"), ("ab", "ab")]
    inner = Inner(models.BPE({token: i for i, token in enumerate(VOCAB)}, merges))
    inner.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    inner.decoder = decoders.Fuse()
    if start:
        inner.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    return Tokenizer(inner)


def prompts(start: bool = False, template: str | None = None) -> Prompts:
    chat = None if template is None else ChatTemplate(template, {})
    return Prompts(scripted_manifest(len(VOCAB)), tokenizer(start), chat)


@given(st.text("abc", max_size=8), st.lists(TEXTS, min_size=1, max_size=5), st.booleans())
def test_each_text_is_encoded_together_with_the_prompt(prompt: str, texts: list[str], start: bool) -> None:
    encoder, alone = prompts(start), tokenizer(start).encode(prompt)
    whole = [tokenizer(start).encode(prompt + text) for text in texts]
    agreed = 0
    while agreed < len(alone) and all(tokens[agreed : agreed + 1] == [alone[agreed]] for tokens in whole):
        agreed += 1
    if not agreed:
        with pytest.raises(RequestError, match="the prompt is empty"):
            encoder.encode_before(prompt, texts)
        return
    known, rests = encoder.encode_before(prompt, texts)
    assert known == alone[:agreed]
    assert [known + rest for rest in rests] == whole
    assert all(rests)


def test_what_is_drawn_together_is_no_longer_the_prompts() -> None:
    assert prompts().encode_before("ca", ["c", "a"]) == ([3, 1], [[3], [1]])
    assert prompts().encode_before("ca", ["bc", "a"]) == ([3], [[6], [1, 1]])
    assert prompts().encode_before([3, 1], ["bc", [1]]) == ([3, 1], [[5], [1]])
    assert prompts().encode_before("ca", [[2, 3]]) == ([3, 1], [[2, 3]])
    chat = prompts(template="{{ messages[0].content }}c")
    assert chat.encode_before([{"role": "user", "content": "ab"}], ["a"]) == ([6], [[1]])


@pytest.mark.parametrize(
    ("prompt", "texts", "message"),
    [
        ("", ["a"], "the prompt is empty; give it at least one token"),
        ("c", ["a", ""], "'' adds no token to the prompt"),
        ("a", [[]], r"\[\] adds no token to the prompt"),
        ([], [[1]], "the prompt is empty; give it at least one token"),
        ("a", [[9]], r"candidate\[0\] is 9; the vocabulary ends at 7"),
        ([{"role": "user"}], ["a"], "scripted has no chat template"),
        (3, ["a"], "a prompt is a text, token ids or the messages of a chat, not of type int"),
    ],
)
def test_what_is_no_prompt_is_refused(prompt: Any, texts: list[Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        prompts().encode_before(prompt, texts)
