"""Tokenizers rebuilt from GGUF metadata, on small vocabularies written by hand."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, pre_tokenizers

from checkpoint_files import LLAMA_METADATA, write_llama
from sardonyx.export.checkpoint import open_checkpoint
from sardonyx.export.checkpoint.gguf_pretokenizers import PRETOKENIZERS
from sardonyx.runtime.errors import SourceError
from sardonyx.runtime.huggingface.tokenizer_files import TokenizerFiles

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
SPECIAL = ["<unk>", "<s>", "</s>"]
WORDS = ["he", "ll", "hell", "hello", "Ġhello", "ĠĠ", "12"]
BYTE_LEVEL: dict[str, Any] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": [*SPECIAL, *BYTES, *WORDS, "<tool>"],
    "tokenizer.ggml.token_type": [2, 3, 3, *[1] * (len(BYTES) + len(WORDS)), 4],
    "tokenizer.ggml.merges": ["h e", "l l", "he ll", "hell o", "Ġ hello", "Ġ Ġ", "1 2"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}
PIECES = ["▁", "h", "e", "l", "o", "▁h", "el", "▁hel", "lo", "▁hello"]
BYTE_PIECES = [f"<0x{i:02X}>" for i in range(256)]
SENTENCEPIECE: dict[str, Any] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": [*SPECIAL, *BYTE_PIECES, *PIECES],
    "tokenizer.ggml.scores": [0.0] * 259 + [-10.0] * 5 + [-1.0, -2.0, -3.0, -4.0, -5.0],
    "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * len(PIECES)],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
}


def tokenizer_files(path: Path, metadata: dict[str, Any], **changes: Any) -> TokenizerFiles:
    """`changes` are metadata behind `tokenizer.ggml.`; None takes a key away."""
    changed = {**metadata, **{f"tokenizer.ggml.{key}": value for key, value in changes.items()}}
    stated = {key: value for key, value in changed.items() if value is not None}
    assert LLAMA_METADATA.keys().isdisjoint(stated)
    return open_checkpoint(write_llama(path / "x.gguf", stated)).tokenizer()


def tokenizer(path: Path, metadata: dict[str, Any], **changes: Any) -> Tokenizer:
    return Tokenizer.from_str(tokenizer_files(path, metadata, **changes).tokenizer_json.decode())


def test_byte_level_words_special_tokens_and_bytes(tmp_path: Path) -> None:
    tok = tokenizer(tmp_path, BYTE_LEVEL)
    assert tok.encode("hello hello</s>").tokens == ["hello", "Ġhello", "</s>"]
    assert tok.encode("<tool>12").tokens == ["<tool>", "12"]
    for text in ("hello  12\n", "héllo 日本 👩‍🚀", " \t x", "e\u0301"):
        assert tok.decode(tok.encode(text).ids) == text
    assert tok.decode(tok.encode("<s>hello<tool></s>").ids) == "hello<tool>"
    assert [tok.id_to_token(i) for i in range(tok.get_vocab_size())] == BYTE_LEVEL["tokenizer.ggml.tokens"]


def test_what_stands_beside_the_tokenizer(tmp_path: Path) -> None:
    metadata = {
        **BYTE_LEVEL,
        "tokenizer.chat_template": "{{ messages }}",
        "tokenizer.chat_templates": ["rag"],
    }
    files = tokenizer_files(tmp_path, metadata, eot_token_id=3, eom_token_id=2, padding_token_id=0)
    assert (files.bos_id, files.eos_ids, files.chat_template) == (1, (2, 3), "{{ messages }}")
    assert files.special_texts == {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"}


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("gpt-2", "a  12", ["a", "Ġ", "Ġ12"]),
        ("smollm", "a  12", ["a", "ĠĠ", "1", "2"]),
        ("starcoder", "\n 7", ["ĊĠ", "7"]),
        ("llama-bpe", "I'LL 12345", ["I", "'LL", "Ġ", "123", "45"]),
        ("qwen2", "I'll 123\n\n", ["I", "'ll", "Ġ", "1", "2", "3", "ĊĊ"]),
        ("tekken", "helloWorld 12", ["hello", "World", "Ġ", "1", "2"]),
        ("default", "a,b 12345", ["a", ",", "b", "Ġ", "123", "45"]),
    ],
)
def test_words_are_split_as_the_file_says(pre: str, text: str, pieces: list[str]) -> None:
    assert [piece for piece, _ in PRETOKENIZERS[pre].split.pre_tokenize_str(text)] == pieces


@pytest.mark.parametrize("pre", sorted(PRETOKENIZERS))
def test_every_splitting_keeps_every_byte(pre: str, tmp_path: Path) -> None:
    tok = tokenizer(tmp_path, BYTE_LEVEL, pre=pre)
    text = 'It\'s  1 234 \n\n x\t日本語 👩‍🚀 ½²٣ {"a": [1.5e-3]} Ünï\u0301 \u00a0z'
    assert tok.decode(tok.encode(text).ids) == text


def test_a_whole_word_that_is_a_token(tmp_path: Path) -> None:
    """With llama-bpe, a word in the vocabulary is taken although no merges lead to it."""
    words = {"tokens": [*BYTE_LEVEL["tokenizer.ggml.tokens"], "yes"]}
    types = {"token_type": [*BYTE_LEVEL["tokenizer.ggml.token_type"], 1]}
    assert tokenizer(tmp_path, BYTE_LEVEL, pre="llama-bpe", **words, **types).encode("yes").tokens[1:] == [
        "yes"
    ]
    assert tokenizer(tmp_path, BYTE_LEVEL, **words, **types).encode("yes").tokens == ["y", "e", "s"]


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, ["h"]),
        ({"add_bos_token": True}, ["<s>", "h"]),
        ({"add_eos_token": True}, ["h", "</s>"]),
        ({"pre": "llama-bpe"}, ["<s>", "h"]),
        ({"pre": "llama-bpe", "add_bos_token": False}, ["h"]),
        ({"add_bos_token": True, "add_eos_token": True, "eos_token_id": 1}, ["<s>", "h", "<s>"]),
    ],
)
def test_begin_and_end_of_texts(changes: dict[str, Any], tokens: list[str], tmp_path: Path) -> None:
    tok = tokenizer(tmp_path, BYTE_LEVEL, **changes)
    assert tok.encode("h").tokens == tokens
    assert tok.encode("h", add_special_tokens=False).tokens == ["h"]
    assert tok.encode("h", "h").tokens == tokens + tokens


def test_bytes_without_a_token_become_the_unknown_token(tmp_path: Path) -> None:
    tokens = [token for token in BYTE_LEVEL["tokenizer.ggml.tokens"] if token != "x"]
    types = [2, 3, 3, *[1] * (len(tokens) - 4), 4]
    known = {"tokens": tokens, "token_type": types, "unknown_token_id": 0}
    assert tokenizer(tmp_path, BYTE_LEVEL, **known).encode("axxb").tokens == ["a", "<unk>", "b"]


def test_an_empty_token_has_the_name_that_llama_cpp_gives_it(tmp_path: Path) -> None:
    tokens = [*BYTE_LEVEL["tokenizer.ggml.tokens"], ""]
    types = [*BYTE_LEVEL["tokenizer.ggml.token_type"], 1]
    tok = tokenizer(tmp_path, BYTE_LEVEL, tokens=tokens, token_type=types)
    assert tok.token_to_id(f"[EMPTY_{len(tokens) - 1}]") == len(tokens) - 1


def test_sentencepiece_merges_by_score_and_falls_back_to_bytes(tmp_path: Path) -> None:
    tok = tokenizer(tmp_path, SENTENCEPIECE)
    assert tok.encode("hello").tokens == ["<s>", "▁hello"]
    assert tok.encode("hel ohello").tokens == ["<s>", "▁hel", "▁", "o", "h", "el", "lo"]
    assert tok.encode("é").tokens == ["<s>", "▁", "<0xC3>", "<0xA9>"]
    for text in ("hello  hello", " é日 👩‍🚀\n", "hello"):
        assert tok.decode(tok.encode(text).ids) == text


def test_sentencepiece_without_a_space_before(tmp_path: Path) -> None:
    tok = tokenizer(tmp_path, SENTENCEPIECE, add_space_prefix=False, add_bos_token=False)
    assert tok.encode("hello").tokens == ["h", "el", "lo"]
    assert tok.decode(tok.encode(" hello").ids) == " hello"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "bert"}, "tokenizer 'bert' is not supported"),
        ({"model": None}, "metadata tokenizer.ggml.model is missing"),
        ({"pre": "martian"}, r"splits words as 'martian' \(metadata tokenizer.ggml.pre\); known are gpt-2"),
        ({"pre": None}, "does not say how its tokenizer splits words"),
        ({"tokens": None}, "metadata tokenizer.ggml.tokens is missing"),
        ({"tokens": [1, 2]}, "tokenizer.ggml.tokens should be a list of str"),
        ({"tokens": ["a", "a"]}, "two tokens of the vocabulary have the same text"),
        ({"token_type": [1]}, r"token_type has 1 values for \d+ tokens"),
        ({"merges": ["hello"]}, "a merge of the tokenizer does not have two parts"),
        ({"merges": ["no never"]}, "the merges do not fit the vocabulary"),
        ({"eos_token_id": 9999}, "eos_token_id is outside of the vocabulary"),
        ({"add_bos_token": True, "bos_token_id": None}, "texts should have a BOS token"),
        ({"add_bos_token": "yes"}, "add_bos_token should be of type bool"),
    ],
)
def test_tokenizers_that_cannot_be_stated(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        tokenizer_files(tmp_path, BYTE_LEVEL, **changes)


def test_sentencepiece_with_rules_that_are_not_followed(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="remove_extra_whitespaces is not supported"):
        tokenizer_files(tmp_path, SENTENCEPIECE, remove_extra_whitespaces=True)
    with pytest.raises(SourceError, match=r"metadata tokenizer.ggml.scores is missing"):
        tokenizer_files(tmp_path, SENTENCEPIECE, scores=None)
