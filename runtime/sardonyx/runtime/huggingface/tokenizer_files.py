"""The tokenizer of a Hugging Face folder: tokenizer.json, and what the files beside it say about it.

Follows transformers 4.57 (`tokenization_utils_base.py`, `tokenization_utils_fast.py`) in what overrides what.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from sardonyx.runtime.errors import SourceError
from sardonyx.runtime.huggingface.json_file import read_json, read_json_if_any
from sardonyx.runtime.huggingface.tokenizer_ends import surround

_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
# The classes of transformers that put BOS and EOS around a text as tokenizer_config.json says, whatever
# tokenizer.json says, and whether BOS is put when tokenizer_config.json is silent.
_SURROUNDING = {"Llama": True, "CodeLlama": True, "Gemma": True, "Cohere": True, "GPTNeoX": False}
_ADDED = ("lstrip", "rstrip", "single_word", "normalized", "special")


@dataclass(frozen=True)
class TokenizerFiles:
    """What the runtime needs to turn text into ids: the artifact stores these as they are."""

    tokenizer_json: bytes
    chat_template: str | None
    bos_id: int | None
    eos_ids: tuple[int, ...]
    special_texts: Mapping[str, str] = field(default_factory=dict)
    """`bos_token`, `eos_token`, `unk_token`, `pad_token` by the names that chat templates use."""


def read_tokenizer(folder: Path, config: Mapping[str, Any], generation: Mapping[str, Any]) -> TokenizerFiles:
    """Raises SourceError when there is no tokenizer.json or the files around it contradict it."""
    options = read_json_if_any(folder / "tokenizer_config.json")
    texts = _special_texts({**read_json_if_any(folder / "special_tokens_map.json"), **options})
    tokenizer = _open(folder)
    _add_tokens(folder, tokenizer, options.get("added_tokens_decoder", {}))
    bos_id, eos_id = (_id(folder, tokenizer, texts.get(name)) for name in ("bos_token", "eos_token"))
    kind = str(options.get("tokenizer_class")).removesuffix("Fast").removesuffix("Tokenizer")
    if kind in _SURROUNDING:
        bos = texts.get("bos_token") if options.get("add_bos_token", _SURROUNDING[kind]) else None
        eos = texts.get("eos_token") if options.get("add_eos_token", False) else None
        surround(tokenizer, bos, eos)
    return TokenizerFiles(
        tokenizer_json=tokenizer.to_str().encode(),
        chat_template=_chat_template(folder, options),
        bos_id=bos_id,
        eos_ids=_eos_ids(folder, generation, config, {"eos_token_id": eos_id}),
        special_texts=texts,
    )


def _open(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        others = [
            name for name in ("tokenizer.model", "vocab.json", "vocab.txt") if (folder / name).is_file()
        ]
        found = f"only {others[0]}" if others else "no tokenizer"
        raise SourceError(
            f"{path}: missing ({found} is there); make it with transformers: "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    try:
        return Tokenizer.from_str(path.read_bytes().decode())
    except Exception as error:  # the library raises nothing more specific
        raise SourceError(f"{path}: not a tokenizer that the tokenizers library can read ({error})") from None


def _add_tokens(folder: Path, tokenizer: Tokenizer, wanted: Any) -> None:
    """Tokens that only tokenizer_config.json lists, each of which must get the id that it says."""
    path = folder / "tokenizer_config.json"
    present = tokenizer.get_added_tokens_decoder()
    try:
        entries = sorted((int(i), entry["content"], entry) for i, entry in wanted.items())
    except (AttributeError, KeyError, TypeError, ValueError):
        raise SourceError(f"{path}: added_tokens_decoder is not a list of tokens by id") from None
    for i, text, entry in entries:
        if i not in present:
            flags = {flag: bool(entry[flag]) for flag in _ADDED if flag in entry}
            tokenizer.add_tokens([AddedToken(text, **flags)])
        if tokenizer.token_to_id(text) != i:
            given = tokenizer.token_to_id(text)
            raise SourceError(f"{path}: says that {text!r} is token {i}, but tokenizer.json makes it {given}")


def _id(folder: Path, tokenizer: Tokenizer, text: str | None) -> int | None:
    i = None if text is None else tokenizer.token_to_id(text)
    if i is None and text is not None:
        raise SourceError(f"{folder / 'tokenizer.json'}: has no {text!r}, which begins or ends its texts")
    return i


def _special_texts(options: Mapping[str, Any]) -> dict[str, str]:
    """The text of each special token, which is written as a text or as a token with flags."""
    texts = {}
    for name in _SPECIAL:
        value = options.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            texts[name] = text
    return texts


def _chat_template(folder: Path, options: Mapping[str, Any]) -> str | None:
    """A file of its own comes before the processor's file, and that before tokenizer_config.json."""
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        return alone.read_text(encoding="utf-8")
    processor = folder / "chat_template.json"
    if processor.is_file():
        return _default(processor, read_json(processor).get("chat_template"))
    return _default(folder / "tokenizer_config.json", options.get("chat_template"))


def _default(path: Path, template: Any) -> str | None:
    """The template itself, or of several named ones that named `default`."""
    if isinstance(template, list):
        template = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
    if isinstance(template, dict):
        if "default" not in template:
            names = ", ".join(map(str, template))
            raise SourceError(f"{path}: has chat templates named {names}, but none named default")
        template = template["default"]
    if template is None or isinstance(template, str):
        return template
    raise SourceError(f"{path}: chat_template should be a text, not a {type(template).__name__}")


def _eos_ids(folder: Path, *settings: Mapping[str, Any]) -> tuple[int, ...]:
    """What the first of `settings` that says anything says ends an answer."""
    for setting in settings:
        value = setting.get("eos_token_id")
        if value is not None:
            ids = tuple(value) if isinstance(value, list) else (value,)
            if not ids or not all(type(i) is int and i >= 0 for i in ids):
                raise SourceError(f"{folder}: eos_token_id should be an id or a list of ids, not {value!r}")
            return ids
    return ()
