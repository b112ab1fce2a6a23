"""How text is split into words before byte-level merging, by the name that a GGUF file gives in
`tokenizer.ggml.pre`.

GGUF stores only a name; the rule behind it is the one of the tokenizer.json that the model was trained with,
as listed in llama.cpp's `src/llama-vocab.cpp`. A name that is not here is refused: a wrong rule gives
plausible ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers


@dataclass(frozen=True)
class Pretokenizer:
    """Patterns that are applied one after the other; each cuts its matches out of the pieces so far."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    """Whether a word that is itself a token is taken whole."""
    add_bos: bool = False
    """Whether a text begins with BOS when the file does not say."""

    def build(self) -> pre_tokenizers.PreTokenizer:
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns]
        return pre_tokenizers.Sequence(
            [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (  # numbers in groups of up to {n}
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{n}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_WORDS = Pretokenizer((_GPT2,))
_SINGLE_DIGITS = Pretokenizer((r"\p{N}", _GPT2))
_LLAMA3 = Pretokenizer((_CL100K.format(n="{1,3}"),), ignore_merges=True, add_bos=True)
_QWEN2 = Pretokenizer((_CL100K.format(n=""),))

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
    "tekken": Pretokenizer((_TEKKEN,), ignore_merges=True, add_bos=True),
    # llama.cpp's own rule, which no model was trained with, for files that ask for it by name.
    "default": Pretokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
}
