"""Tokenizers of the kinds that language models use, made small: whole texts, and streams against them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Inner

from sardonyx.runtime.errors import ArtifactError, RequestError
from sardonyx.runtime.tokenizer import REPLACEMENT, Tokenizer, WindowStream

HARD = [
    "",
    "plain words",
    "  two  spaces ",
    "tab\tand\nnewline\r\n",
    "naïve café",
    "日本語の文章",
    "한국어",
    "עברית",
]
HARD += [
    "👩‍👩‍👧‍👦 family",
    "🏴󠁧󠁢󠁷󠁬󠁳󠁿 flag",
    "a\u0301 combining",
    "\u200d",
    "def f(x):\n    return x**2\n",
    "1234567 3.14",
    "\ufffd",
    "\x00",
]
texts = st.one_of(st.sampled_from(HARD), st.text(max_size=30))


def byte_level() -> Inner:
    """GPT-2's kind: a token for each byte, some merges (half a character among them), tokens added on top."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "a"), ("e", "r"), ("ä", "¸"), ("ð", "Ł"), ("ðŁ", "ĳ"), ("Ģ", "Ģ")]
    vocab = {token: place for place, token in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    inner = Inner(models.BPE(vocab=vocab, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<|end|>", "<|start|>"])
    inner.add_tokens([AddedToken("<tool call>"), AddedToken("日本")])
    return inner


def sentencepiece(strip: int = 1) -> Inner:
    """Llama 2's kind: pieces with ▁ for a space, and a token for each byte where no piece fits."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "▁▁", "▁a", "a", "b", "é", "日", "▁▁the", "Ġ", "<0x4>", "<0xGG>"]
    inner = Inner(
        models.BPE(vocab={piece: n for n, piece in enumerate(pieces)}, merges=[], byte_fallback=True)
    )
    front = [decoders.Strip(" ", strip, 0)] if strip else []
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *front]
    )
    inner.add_special_tokens(["<s>", "</s>"])
    inner.add_tokens(["<tool▁call>"])
    return inner


def word_pieces() -> Inner:
    inner = Inner(models.WordPiece(vocab={"[UNK]": 0, "un": 1, "##do": 2, "it": 3, ".": 4, "'": 5, "##s": 6}))
    inner.decoder = decoders.WordPiece()
    return inner


def metaspace() -> Inner:
    vocab = {"▁": 0, "▁a": 1, "b": 2, "▁▁": 3, "c▁d": 4}
    inner = Inner(models.WordLevel(vocab=vocab, unk_token="▁"))
    inner.decoder = decoders.Metaspace()
    return inner


def bare() -> Inner:
    inner = word_pieces()
    inner.decoder = None  # type: ignore[assignment]  # the library takes None
    return inner


KINDS = {
    kind.__name__: Tokenizer(kind()) for kind in (byte_level, sentencepiece, word_pieces, metaspace, bare)
}
KINDS["sentencepiece, no strip"] = Tokenizer(sentencepiece(0))
KINDS["sentencepiece, strip 3"] = Tokenizer(sentencepiece(3))
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
@pytest.mark.parametrize("skip", [True, False])
@given(data=st.data())
def test_a_stream_gives_what_the_whole_gives(kind: str, skip: bool, data: st.DataObject) -> None:
    tokenizer = KINDS[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3), max_size=40))
    stream = tokenizer.detokenizer(skip_special_tokens=skip)
    pieces = [stream.push(token) for token in ids]
    assert "".join([*pieces, stream.flush()]) == tokenizer.decode(ids, skip_special_tokens=skip)
    assert stream.flush() == ""


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@given(texts)
def test_a_stream_of_valid_text_never_shows_half_a_character(kind: str, text: str) -> None:
    tokenizer = KINDS[kind]
    stream = tokenizer.detokenizer()
    shown = ""
    for token in tokenizer.encode(text, add_special_tokens=False):
        shown += stream.push(token)
        assert text.removeprefix(" ").startswith(shown) or text.startswith(shown)
    assert REPLACEMENT not in stream.flush() or REPLACEMENT in text


@given(texts)
def test_byte_level_text_round_trips(text: str) -> None:
    tokenizer = KINDS["byte_level"]
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("<|end|>", "").replace("<|start|>", "")


def test_a_character_shows_as_soon_as_its_last_byte_is_there() -> None:
    tokenizer = KINDS["byte_level"]
    stream = tokenizer.detokenizer()
    pieces = [stream.push(token) for token in tokenizer.encode("x世👧!")]
    assert [piece for piece in pieces if piece] == ["x", "世", "👧", "!"]


def test_an_invalid_byte_holds_nothing_back_for_long() -> None:
    tokenizer = KINDS["byte_level"]
    stream = tokenizer.detokenizer()
    start_of_three = tokenizer.id("ä")  # 0xE4
    letter = tokenizer.id("x")
    assert start_of_three is not None
    assert letter is not None
    assert [stream.push(token) for token in (start_of_three, start_of_three, letter)] == [
        "",
        REPLACEMENT,
        REPLACEMENT + "x",
    ]


def test_an_unfinished_character_appears_at_the_end() -> None:
    tokenizer = KINDS["byte_level"]
    stream = tokenizer.detokenizer()
    (whole, *_) = tokenizer.encode("世")
    assert stream.push(whole) == ""
    assert stream.flush() == REPLACEMENT


def test_skipped_tokens_do_not_make_the_next_one_the_first() -> None:
    tokenizer = KINDS["sentencepiece"]
    ids = [tokenizer.id(token) for token in ("<s>", "▁a", "</s>", "▁a")]
    stream = tokenizer.detokenizer()
    assert [stream.push(token) for token in ids if token is not None] == ["", "a", "", " a"]


def test_a_window_waits_for_half_a_character_but_not_for_ever() -> None:
    """The decoder of transformers' GGUF conversions, which is no plain ByteLevel."""
    inner = byte_level()
    inner.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " "), decoders.ByteLevel()]
    )
    tokenizer = Tokenizer(inner)
    stream = tokenizer.detokenizer()
    pieces = [stream.push(token) for token in tokenizer.encode("a世b👩‍👩‍👧")]
    assert "".join(pieces) == "a世b👩‍👩‍👧"
    assert not any(REPLACEMENT in piece for piece in pieces)
    invalid = tokenizer.id("Ã")
    assert invalid is not None
    held = [stream.push(invalid) for _ in range(WindowStream.PATIENCE)]
    assert held[:-1] == [""] * (WindowStream.PATIENCE - 1)
    assert set(held[-1]) == {REPLACEMENT}


def test_a_decoder_of_unknown_shape_is_seen_through_a_window() -> None:
    inner = sentencepiece()
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip("_", 0, 1)])
    tokenizer = Tokenizer(inner)
    stream = tokenizer.detokenizer()
    ids = tokenizer.encode("ab世a")
    assert "".join([stream.push(token) for token in ids]) == tokenizer.decode(ids) == "ab世a"


def test_limits_kept_from_training_are_lifted(tmp_path: Path) -> None:
    inner = byte_level()
    inner.enable_truncation(4)
    inner.enable_padding(length=64)
    inner.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    assert len(tokenizer.encode("0123456789")) == 10


def test_special_tokens_are_added_when_asked_for() -> None:
    inner = byte_level()
    start = inner.token_to_id("<|start|>")
    inner.post_processor = processors.TemplateProcessing(
        "<|start|> $A", special_tokens=[("<|start|>", start)]
    )
    tokenizer = Tokenizer(inner)
    assert tokenizer.encode("x") == [start, tokenizer.id("x")]
    assert tokenizer.encode("x", add_special_tokens=False) == [tokenizer.id("x")]
    assert tokenizer.encode("<|start|>x", add_special_tokens=False) == [start, tokenizer.id("x")]


def test_names_and_numbers() -> None:
    tokenizer = KINDS["byte_level"]
    assert tokenizer.vocab_size == 256 + 6 + 4
    assert tokenizer.id("<|end|>") == 262
    assert tokenizer.id("no such token") is None


def test_a_lone_surrogate_is_refused_and_located() -> None:
    with pytest.raises(RequestError, match="surrogate at character 2"):
        KINDS["byte_level"].encode("ab\ud800")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: missing"):
        Tokenizer.load(tmp_path)


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    whole = byte_level().to_str().encode()
    for tenth in range(10):
        (tmp_path / "tokenizer.json").write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(ArtifactError, match=r"tokenizer\.json: damaged"):
            Tokenizer.load(tmp_path)


@pytest.mark.parametrize("key", ["model", "decoder", "added_tokens", "pre_tokenizer"])
def test_an_altered_file_is_named(tmp_path: Path, key: str) -> None:
    whole = json.loads(byte_level().to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole | {key: {"type": "Nonsense"}}))
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: damaged"):
        Tokenizer.load(tmp_path)
