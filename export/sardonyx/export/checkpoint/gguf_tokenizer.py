"""The tokenizer inside a GGUF file, as a tokenizer.json for the `tokenizers` library.

GGUF keeps vocabulary, merges or scores, token types and the names of rules; the pieces around them (what
splits words, how bytes are spelled, how text is put together again) are rebuilt here. Knows nothing about
tensors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from sardonyx.export.checkpoint import TokenizerFiles
from sardonyx.export.checkpoint.gguf_header import Metadata
from sardonyx.export.checkpoint.gguf_pretokenizers import PRETOKENIZERS
from sardonyx.runtime.errors import SourceError

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
    tokens = _tokens(metadata)
    if kind == "gpt2":
        tokenizer, add_bos = _byte_level(metadata, tokens)
    elif kind == "llama":
        tokenizer, add_bos = _sentencepiece(metadata, tokens)
    else:
        raise SourceError(f"{metadata.path}: tokenizer {kind!r} is not supported (gpt2 and llama are)")
    special = {name: metadata.get(key, int) for name, key in _SPECIAL.items()}
    texts = {name: _token(metadata, tokens, i) for name, i in special.items() if i is not None}
    ends = eos_ids(metadata)
    _add_tokens(metadata, tokenizer, tokens, [_token(metadata, tokens, i) for i in ends])
    _add_ends(metadata, tokenizer, texts, add_bos)
    return TokenizerFiles(
        tokenizer_json=tokenizer.to_str().encode(),
        chat_template=metadata.get("tokenizer.chat_template", str),
        bos_id=special["bos_token"],
        eos_ids=ends,
        special_texts=texts,
    )


def _tokens(metadata: Metadata) -> list[str]:
    tokens = _list(metadata, "tokenizer.ggml.tokens", str, None)
    tokens = [text or f"[EMPTY_{i}]" for i, text in enumerate(tokens)]  # as llama.cpp names them
    if len(set(tokens)) != len(tokens):
        raise SourceError(f"{metadata.path}: two tokens of the vocabulary have the same text")
    return tokens


def _byte_level(metadata: Metadata, tokens: list[str]) -> tuple[Tokenizer, bool]:
    """Byte-level BPE (GPT-2 and most models since)."""
    name = metadata.get("tokenizer.ggml.pre", str)
    if name is None or name not in PRETOKENIZERS:
        known = ", ".join(PRETOKENIZERS)
        said = "does not say how its tokenizer splits words" if name is None else f"splits words as {name!r}"
        raise SourceError(f"{metadata.path}: {said} (tokenizer.ggml.pre); known are {known}")
    rule = PRETOKENIZERS[name]
    merges = [tuple(merge.split(" ")) for merge in _list(metadata, "tokenizer.ggml.merges", str, None)]
    if any(len(merge) != 2 for merge in merges):
        raise SourceError(f"{metadata.path}: a merge of the tokenizer does not have two parts")
    tokenizer = Tokenizer(_bpe(metadata, tokens, merges, ignore_merges=rule.ignore_merges))
    tokenizer.pre_tokenizer = rule.build()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, rule.add_bos


def _sentencepiece(metadata: Metadata, tokens: list[str]) -> tuple[Tokenizer, bool]:
    """SentencePiece BPE with byte fallback (Llama 2, Mistral), as transformers' LlamaConverter writes it."""
    for key in ("tokenizer.ggml.remove_extra_whitespaces", "tokenizer.ggml.precompiled_charsmap"):
        if metadata.values.get(key):
            raise SourceError(f"{metadata.path}: {key} is not supported with a tokenizer of type llama")
    scores = _list(metadata, "tokenizer.ggml.scores", float, len(tokens))
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", int)
    tokenizer = Tokenizer(
        _bpe(
            metadata,
            tokens,
            _merges_from_scores(tokens, scores),
            unk_token=None if unknown is None else _token(metadata, tokens, unknown),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", bool) is not False
    to_pieces = [normalizers.Prepend(_SPACE)] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*to_pieces, normalizers.Replace(" ", _SPACE)])
    from_pieces = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*from_pieces, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return tokenizer, True


def _merges_from_scores(tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    """The merges that SentencePiece would do, best first: it merges whatever pair makes the best-scored
    token.
    """
    score = dict(zip(tokens, scores, strict=True))
    ranked: list[tuple[float, list[tuple[str, str]]]] = []
    for token in tokens:
        pairs = [(token[:i], token[i:]) for i in range(1, len(token))]
        pairs = [(left, right) for left, right in pairs if left in score and right in score]
        pairs.sort(key=lambda pair: (score[pair[0]], score[pair[1]]), reverse=True)
        ranked.append((score[token], pairs))
    ranked.sort(key=lambda entry: entry[0], reverse=True)
    return [pair for _, pairs in ranked for pair in pairs]


def _bpe(metadata: Metadata, tokens: list[str], merges: list[Any], **options: Any) -> models.BPE:
    try:
        return models.BPE({text: i for i, text in enumerate(tokens)}, merges, **options)
    except Exception as error:  # the library raises nothing more specific
        raise SourceError(f"{metadata.path}: the merges do not fit the vocabulary ({error})") from None


def _add_tokens(metadata: Metadata, tokenizer: Tokenizer, tokens: list[str], ends: list[str]) -> None:
    """Tokens that are found in a text before it is split: control tokens and those a user has defined."""
    types = _list(metadata, "tokenizer.ggml.token_type", int, len(tokens))
    special = {text for text, kind in zip(tokens, types, strict=True) if kind in (_UNKNOWN, _CONTROL)} | set(
        ends
    )
    added = special | {text for text, kind in zip(tokens, types, strict=True) if kind == _USER_DEFINED}
    tokenizer.add_tokens(
        [AddedToken(text, normalized=False, special=text in special) for text in tokens if text in added]
    )


def _add_ends(metadata: Metadata, tokenizer: Tokenizer, texts: Mapping[str, str], add_bos: bool) -> None:
    """Put BOS before and EOS behind every text, where the file says so."""
    ends = []
    for name, default in (("bos", add_bos), ("eos", False)):
        stated = metadata.get(f"tokenizer.ggml.add_{name}_token", bool)
        if stated or (stated is None and default):
            if f"{name}_token" not in texts:
                raise SourceError(
                    f"{metadata.path}: texts should have a {name.upper()} token, but the file names none"
                )
            ends.append(name)
    if not ends:
        return
    before = ["bos_token"] if "bos" in ends else []
    behind = ["eos_token"] if "eos" in ends else []
    one = [*(texts[name] for name in before), "$A", *(texts[name] for name in behind)]
    other = [*(f"{texts[name]}:1" for name in before), "$B:1", *(f"{texts[name]}:1" for name in behind)]
    ids = [(texts[name], tokenizer.token_to_id(texts[name])) for name in before + behind]
    tokenizer.post_processor = processors.TemplateProcessing(single=one, pair=one + other, special_tokens=ids)


def _token(metadata: Metadata, tokens: Sequence[str], index: int) -> str:
    if index >= len(tokens):
        raise SourceError(
            f"{metadata.path}: special token {index} is outside of the vocabulary of {len(tokens)}"
        )
    return tokens[index]


def _list(metadata: Metadata, key: str, kind: type, length: int | None) -> list[Any]:
    values = metadata.require(key, list)
    if (length is not None and len(values) != length) or (values and type(values[0]) is not kind):
        wanted = f"{length} values" if length is not None else "values"
        raise SourceError(f"{metadata.path}: metadata {key} should hold {wanted} of type {kind.__name__}")
    return values
