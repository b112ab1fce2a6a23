"""Token ids to text and back, whole or one token at a time.

`tokenizers` does the work on whole texts. Streaming is done here, because the library's DecodeStream waits
for ever on an invalid byte, decodes its growing backlog anew at each step, and cannot be told that the text
has ended. Nothing here knows of models, prompts or chat.
"""

import codecs
import json
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import tokenizers

from sardonyx.runtime.errors import ArtifactError, RequestError
from sardonyx.runtime.manifest import TOKENIZER_NAME

REPLACEMENT = "\ufffd"


class Tokenizer:
    """The tokenizer of an artifact."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self._inner = inner
        # A tokenizer.json may carry the limits of its training; here nothing is cut or padded silently.
        inner.no_truncation()
        inner.no_padding()

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read the tokenizer of an artifact folder. Raises ArtifactError naming the file."""
        path = folder / TOKENIZER_NAME
        if not path.is_file():
            raise ArtifactError(f"{path}: missing; export the model again")
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises nothing narrower
            raise ArtifactError(f"{path}: damaged ({error}); export the model again") from None

    @classmethod
    def parse(cls, content: bytes) -> "Tokenizer":
        """From the content of a tokenizer.json that is known to be sound."""
        return cls(tokenizers.Tokenizer.from_buffer(content))

    @property
    def vocab_size(self) -> int:
        """How many tokens it knows, added ones included. The model's own vocabulary may be padded beyond
        it."""
        return self._inner.get_vocab_size(with_added_tokens=True)

    def id(self, token: str) -> int | None:
        """Id of a token given as the vocabulary spells it, None if it has no such token."""
        return self._inner.token_to_id(token)

    def equals(self, other: "Tokenizer") -> bool:
        """Whether another makes the same tokens of every text."""
        return self._inner.to_str() == other._inner.to_str()

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Ids of a text. `add_special_tokens` adds what the model expects around a bare text (often a leading
        BOS).

        A rendered chat template carries its special tokens already: encode it with False, or BOS comes twice.
        Raises RequestError for text that is not Unicode (a lone surrogate).
        """
        try:
            return self._inner.encode(text, add_special_tokens=add_special_tokens).ids
        except TypeError:
            place = next(i for i, letter in enumerate(text) if "\ud800" <= letter <= "\udfff")
            raise RequestError(
                f"the text is not valid Unicode: a lone surrogate at character {place}"
            ) from None

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of ids. Ids without a token give nothing; bytes that are not UTF-8 give U+FFFD."""
        return self._inner.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def detokenizer(self, skip_special_tokens: bool = True) -> "Detokenizer":
        """A fresh stream: its pieces joined are what `decode` gives for all ids at once."""
        skipped = self._special_ids if skip_special_tokens else frozenset()
        return Detokenizer(self._inner.id_to_token, skipped, self._stream())

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        added = self._inner.get_added_tokens_decoder()
        return frozenset(id_ for id_, token in added.items() if token.special)

    @cached_property
    def _stream(self) -> Callable[[], "Stream"]:
        """Maker of the stream that follows this tokenizer's decoder."""
        decoder = self._inner.decoder
        if decoder is None:
            return lambda: WindowStream(" ".join)
        spec = json.loads(decoder.__getstate__())
        steps = spec["decoders"] if spec["type"] == "Sequence" else [spec]
        if [step["type"] for step in steps] == ["ByteLevel"]:
            return ByteStream
        if (plan := _piece_plan(steps)) is not None:
            return lambda: PieceStream(*plan)
        return lambda: WindowStream(decoder.decode)


class Detokenizer:
    """Turns ids into text as they come, never showing half a character."""

    def __init__(
        self, token_of: Callable[[int], str | None], skipped: frozenset[int], stream: "Stream"
    ) -> None:
        self._token_of = token_of
        self._skipped = skipped
        self._stream = stream

    def fork(self) -> "Detokenizer":
        """Another that has come as far as this one."""
        return Detokenizer(self._token_of, self._skipped, deepcopy(self._stream))

    def push(self, token_id: int) -> str:
        """Take the next id; return the text that it completes, often its own, sometimes none."""
        if token_id in self._skipped or (token := self._token_of(token_id)) is None:
            return ""
        return self._stream.push(token)

    def flush(self) -> str:
        """The text has ended: return what is left, with U+FFFD for a character that was never completed."""
        return self._stream.flush()


class Stream(Protocol):
    """Text from tokens as the vocabulary spells them, one at a time."""

    def push(self, token: str) -> str: ...

    def flush(self) -> str: ...


class ByteStream:
    """Exact stream of a ByteLevel decoder (GPT-2, Llama 3, Qwen): each token is a string of bytes."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: str) -> str:
        try:
            data = bytes(map(BYTE_OF.__getitem__, token))
        except KeyError:  # an added token with letters outside the alphabet stands for itself
            data = token.encode()
        return self._utf8.decode(data)

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class PieceStream:
    """Exact stream of a SentencePiece-like decoder (Llama 2, Mistral, Gemma): pieces, bytes where no piece
    fits.

    Such a decoder judges a run of byte tokens as one: all UTF-8, or each byte a U+FFFD. So a run is shown
    when it ends. `replaced` are (old, new) texts in a piece; up to `stripped` of the letter `blank` are cut
    off the front.
    """

    def __init__(self, replaced: list[tuple[str, str]], blank: str, stripped: int) -> None:
        self._replaced = replaced
        self._blank = blank
        self._stripped = stripped
        self._run = bytearray()

    def push(self, token: str) -> str:
        for old, new in self._replaced:
            token = token.replace(old, new)
        if BYTE_TOKEN.fullmatch(token):
            self._run.append(int(token[3:5], 16))
            return ""
        return self._strip(self._end_run() + token)

    def flush(self) -> str:
        return self._strip(self._end_run())

    def _end_run(self) -> str:
        run, self._run = self._run, bytearray()
        try:
            return run.decode()
        except UnicodeDecodeError:
            return REPLACEMENT * len(run)

    def _strip(self, text: str) -> str:
        while self._stripped and text:
            if not text.startswith(self._blank):
                self._stripped = 0
                break
            self._stripped -= 1
            text = text[1:]
        return text


class WindowStream:
    """Stream of any other decoder, seen through a window of the last tokens shown and the new ones.

    Exact where the text of a token depends on its neighbours and on being the first (WordPiece, Metaspace).
    Text that ends in U+FFFD may be half a character, and is waited for as long as a character can be.
    """

    PATIENCE = 8

    def __init__(self, decode: Callable[[list[str]], str]) -> None:
        self._decode = decode
        self._shown: list[str] = []
        self._new: list[str] = []

    def push(self, token: str) -> str:
        self._new.append(token)
        text = self._decode(self._shown + self._new)
        if text.endswith(REPLACEMENT) and len(self._new) < self.PATIENCE:
            return ""
        return self._show(text)

    def flush(self) -> str:
        return self._show(self._decode(self._shown + self._new)) if self._new else ""

    def _show(self, text: str) -> str:
        before = self._decode(self._shown) if self._shown else ""
        self._shown, self._new = self._new, []
        return text[len(before) :]


def _byte_alphabet() -> dict[str, int]:
    """The byte of each letter of the ByteLevel alphabet: printable Latin-1 is itself, others 256 and on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTE_OF = _byte_alphabet()
BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")


def _piece_plan(steps: list[dict[str, Any]]) -> tuple[list[tuple[str, str]], str, int] | None:
    """What PieceStream takes, if the decoder is Replace..., ByteFallback, Fuse and perhaps a front Strip."""
    kinds = [step["type"] for step in steps]
    replaces = [step for step in steps if step["type"] == "Replace"]
    strips = [step for step in steps if step["type"] == "Strip"]
    shape = ["Replace"] * len(replaces) + ["ByteFallback", "Fuse"] + ["Strip"] * len(strips)
    if kinds != shape or len(strips) > 1 or any("String" not in step["pattern"] for step in replaces):
        return None
    strip: dict[str, Any] = strips[0] if strips else {"content": " ", "start": 0, "stop": 0}
    if strip["stop"]:
        return None
    return (
        [(step["pattern"]["String"], step["content"]) for step in replaces],
        strip["content"],
        strip["start"],
    )
