"""How text is split into words before byte-level merging, by the name in GGUF's `tokenizer.ggml.pre`.

GGUF stores only a name; the rule behind it is that of the tokenizer.json the model was trained with, which
llama.cpp's `src/llama-vocab.cpp` lists. A name that is not here is refused: a wrong rule gives plausible ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split


@dataclass(frozen=True)
class Pretokenizer:
    split: PreTokenizer
    ignore_merges: bool = False
    """Whether a word that is itself a token is taken whole."""
    add_bos: bool = False
    """Whether a text begins with BOS when the file does not say."""


def _patterns(*patterns: str) -> PreTokenizer:
    """Applied one after the other; each cuts its matches out of the pieces so far."""
    cuts = [Split(Regex(pattern), "isolated") for pattern in patterns]
    return Sequence([*cuts, ByteLevel(add_prefix_space=False, use_regex=False)])


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # ByteLevel's own
_CONTRACTION_OR_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS_OR_SPACE = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_WORDS = Pretokenizer(ByteLevel(add_prefix_space=False))
_SINGLE_DIGITS = Pretokenizer(Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]))
_LLAMA3 = Pretokenizer(
    _patterns(rf"{_CONTRACTION_OR_WORD}|\p{{N}}{{1,3}}|{_SIGNS_OR_SPACE}"), ignore_merges=True, add_bos=True
)
_QWEN2 = Pretokenizer(_patterns(rf"{_CONTRACTION_OR_WORD}|\p{{N}}|{_SIGNS_OR_SPACE}"))

PRETOKENIZERS: Mapping[str, Pretokenizer] = {
    "gpt-2": _WORDS,
    "olmo": _WORDS,
    "phi-2": _WORDS,
    "smollm": _SINGLE_DIGITS,
    "starcoder": _SINGLE_DIGITS,
    "command-r": _SINGLE_DIGITS,
    "exaone": _SINGLE_DIGITS,
    "llama-bpe": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama3": _LLAMA3,
    "falcon3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "megrez": _QWEN2,
    "stablelm2": _QWEN2,
    "tekken": Pretokenizer(_patterns(_TEKKEN), ignore_merges=True, add_bos=True),
    # llama.cpp's own rule, which no model was trained with, for files that ask for it by name.
    "default": Pretokenizer(_patterns(r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
}
