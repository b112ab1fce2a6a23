"""The tokenizer inside a GGUF file, as a tokenizer.json for the `tokenizers` library.

GGUF keeps vocabulary, merges or scores, token types and the names of rules; the pieces around them (what
splits words, how bytes are spelled, how text is put together again) are rebuilt here. Knows no tensors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from sardonyx.export.checkpoint.gguf_header import Metadata
from sardonyx.export.checkpoint.gguf_pretokenizers import PRETOKENIZERS
from sardonyx.runtime.errors import SourceError
from sardonyx.runtime.huggingface.tokenizer_ends import surround
from sardonyx.runtime.huggingface.tokenizer_files import TokenizerFiles

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # llama.cpp's llama_token_type
_SPACE = "▁"
_SPECIAL = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}
_ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


def eos_ids(metadata: Metadata) -> tuple[int, ...]:
    """Ids that end an answer: end of sequence, of turn, of message; as far as the file names them."""
    ids = (metadata.get(key, int) for key in _ENDS)
    return tuple(dict.fromkeys(i for i in ids if i is not None))


def read_tokenizer(metadata: Metadata) -> TokenizerFiles:
    """Rebuild the tokenizer. Raises SourceError when there is none or it cannot be stated exactly."""
    kind = metadata.require("tokenizer.ggml.model", str)
    if kind not in ("gpt2", "llama"):
        raise SourceError(f"{metadata.path}: tokenizer {kind!r} is not supported (gpt2 and llama are)")
    vocabulary = _vocabulary(metadata)
    tokenizer, add_bos = _byte_level(vocabulary) if kind == "gpt2" else _sentencepiece(vocabulary)
    _add_tokens(vocabulary, tokenizer)
    _surround(vocabulary, tokenizer, {"bos": add_bos, "eos": False})
    return TokenizerFiles(
        tokenizer_json=tokenizer.to_str().encode(),
        chat_template=metadata.get("tokenizer.chat_template", str),
        bos_id=metadata.get(_SPECIAL["bos_token"], int),
        eos_ids=eos_ids(metadata),
        special_texts=vocabulary.special,
    )


@dataclass(frozen=True)
class _Vocabulary:
    metadata: Metadata
    tokens: Sequence[str]
    special: Mapping[str, str]
    """`bos_token` and its like, as far as the file names them."""

    def column(self, key: str, kind: type) -> list[Any]:
        """Metadata that says one thing of each token."""
        return _column(self.metadata, key, kind, len(self.tokens))

    def bpe(
        self, merges: list[Any], *, ignore_merges: bool = False, byte_fallback: bool = False
    ) -> Tokenizer:
        """What is not in the vocabulary, byte for byte, becomes the unknown token if the file names one."""
        ids = {text: i for i, text in enumerate(self.tokens)}
        try:
            model = models.BPE(
                ids,
                merges,
                unk_token=self.special.get("unk_token"),
                fuse_unk=True,
                byte_fallback=byte_fallback,
                ignore_merges=ignore_merges,
            )
        except Exception as error:  # the library raises nothing more specific
            raise SourceError(
                f"{self.metadata.path}: the merges do not fit the vocabulary ({error})"
            ) from None
        return Tokenizer(model)


def _vocabulary(metadata: Metadata) -> _Vocabulary:
    tokens = _column(metadata, "tokenizer.ggml.tokens", str, None)
    tokens = [text or f"[EMPTY_{i}]" for i, text in enumerate(tokens)]  # as llama.cpp names them
    if len(set(tokens)) < len(tokens):
        raise SourceError(f"{metadata.path}: two tokens of the vocabulary have the same text")
    for key in (*_SPECIAL.values(), *_ENDS):
        if not 0 <= (metadata.get(key, int) or 0) < len(tokens):
            raise SourceError(f"{metadata.path}: {key} is outside of the vocabulary of {len(tokens)} tokens")
    ids = {name: metadata.get(key, int) for name, key in _SPECIAL.items()}
    return _Vocabulary(metadata, tokens, {name: tokens[i] for name, i in ids.items() if i is not None})


def _byte_level(vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    """Byte-level BPE (GPT-2 and most models since), and whether its texts begin with BOS by default."""
    metadata = vocabulary.metadata
    name = metadata.get("tokenizer.ggml.pre", str)
    if name is None or name not in PRETOKENIZERS:
        said = "does not say how its tokenizer splits words" if name is None else f"splits words as {name!r}"
        known = ", ".join(PRETOKENIZERS)
        raise SourceError(f"{metadata.path}: {said} (metadata tokenizer.ggml.pre); known are {known}")
    rule = PRETOKENIZERS[name]
    merges = [tuple(merge.split(" ")) for merge in _column(metadata, "tokenizer.ggml.merges", str, None)]
    if any(len(merge) != 2 for merge in merges):
        raise SourceError(f"{metadata.path}: a merge of the tokenizer does not have two parts")
    tokenizer = vocabulary.bpe(merges, ignore_merges=rule.ignore_merges)
    tokenizer.pre_tokenizer = rule.split
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, rule.add_bos


def _sentencepiece(vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    """SentencePiece BPE with byte fallback (Llama 2, Mistral), as transformers' LlamaConverter writes it."""
    metadata = vocabulary.metadata
    for key in ("tokenizer.ggml.remove_extra_whitespaces", "tokenizer.ggml.precompiled_charsmap"):
        if metadata.values.get(key):
            raise SourceError(f"{metadata.path}: {key} is not supported with a tokenizer of type llama")
    scores = vocabulary.column("tokenizer.ggml.scores", float)
    tokenizer = vocabulary.bpe(_merges(vocabulary.tokens, scores), byte_fallback=True)
    to_pieces: list[normalizers.Normalizer] = [normalizers.Replace(" ", _SPACE)]
    to_text: list[decoders.Decoder] = [
        decoders.Replace(_SPACE, " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
    ]
    if metadata.get("tokenizer.ggml.add_space_prefix", bool) is not False:
        to_pieces.insert(0, normalizers.Prepend(_SPACE))
        to_text.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(to_pieces)
    tokenizer.decoder = decoders.Sequence(to_text)
    return tokenizer, True


def _merges(tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    """What SentencePiece would merge, first things first: any pair that makes the best-scored token."""
    score = dict(zip(tokens, scores, strict=True))
    merges: list[tuple[str, str]] = []
    for token in sorted(tokens, key=score.__getitem__, reverse=True):
        pairs = [(token[:i], token[i:]) for i in range(1, len(token))]
        known = [(left, right) for left, right in pairs if left in score and right in score]
        merges += sorted(known, key=lambda pair: (score[pair[0]], score[pair[1]]), reverse=True)
    return merges


def _add_tokens(vocabulary: _Vocabulary, tokenizer: Tokenizer) -> None:
    """Tokens that are found in a text before it is split: control tokens and those a user has defined."""
    ends = eos_ids(vocabulary.metadata)
    added = []
    for i, kind in enumerate(vocabulary.column("tokenizer.ggml.token_type", int)):
        special = kind in (_UNKNOWN, _CONTROL) or i in ends
        if special or kind == _USER_DEFINED:
            added.append(AddedToken(vocabulary.tokens[i], normalized=False, special=special))
    tokenizer.add_tokens(added)


def _surround(vocabulary: _Vocabulary, tokenizer: Tokenizer, defaults: Mapping[str, bool]) -> None:
    """Put BOS before and EOS behind every text, where the file says so or is silent and that is the rule."""
    texts: dict[str, str] = {}
    for name, default in defaults.items():
        stated = vocabulary.metadata.get(f"tokenizer.ggml.add_{name}_token", bool)
        if stated or (stated is None and default):
            if f"{name}_token" not in vocabulary.special:
                path = vocabulary.metadata.path
                raise SourceError(
                    f"{path}: texts should have a {name.upper()} token, but the file names none"
                )
            texts[name] = vocabulary.special[f"{name}_token"]
    if texts:
        surround(tokenizer, texts.get("bos"), texts.get("eos"))


def _column(metadata: Metadata, key: str, kind: type, length: int | None) -> list[Any]:
    values = metadata.require(key, list)
    if values and type(values[0]) is not kind:
        raise SourceError(f"{metadata.path}: metadata {key} should be a list of {kind.__name__}")
    if length is not None and len(values) != length:
        raise SourceError(f"{metadata.path}: metadata {key} has {len(values)} values for {length} tokens")
    return values
