"""Tokenizers of GGUF files give the ids that transformers' own conversion of the same file gives.

With one difference, and it is theirs: transformers ignores `tokenizer.ggml.pre` and splits words as GPT-2
does, so that digits run together. SmolLM2 was trained with every digit alone (its vocabulary holds no token
of two digits, nor of a space and a digit), and its file says so. The two ways can differ only where a number
follows two or more characters of white space, or where it is not ASCII and its bytes could merge with what
stands before. Everywhere else the ids are equal as they are; and everywhere, once transformers' tokenizer
splits as the file says.
"""

import random
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

from checkpoint_files import write_llama
from sardonyx.export.checkpoint import open_checkpoint

pytestmark = pytest.mark.parity

HARD = [
    "",
    " ",
    "   leading and trailing   ",
    "a b  c   d    e" + " " * 40 + "f",
    "tabs\t\tand\nlines\n\n\n  indented\r\nwindows\r",
    "0 1 22 333 4444 1,234,567.89 3.14159e-10 0x1F 2026-11-23T00:25:00Z +49 (0)30 1234",
    "  12 and   345\n\n6\n 7\t8 \u00a09",
    "x² + y³ = ½ of ¼, ٣٤٥ १२३ ⅫⅦ ①②③ 百二十",
    "I'm you're he'll we'd they've it's o'clock 'tis I'M YOU'RE ’s",
    "def f(x: int) -> str:\n    return f'{x!r:>10}'  # so\n\n\nif __name__ == '__main__':\n\tf(12)\n",
    "SELECT * FROM t WHERE a<>b AND c!='d' -- hi\n#include <stdio.h>\nfor(;;){i++;}//x",
    '<div class="a">&nbsp;</div> {"k": [1, 2.5, null, true]} \\n \\u00e9 C:\\dir\\file',
    "日本語のテキスト、中文文本。한국어 텍스트 ภาษาไทย עברית العربية हिन्दी",
    "😀😃 👩‍👩‍👧‍👦 👍🏽 🇩🇪🇯🇵 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️",
    "☎︎ ⌨️",
    "e\u0301 n\u0303 Z\u0351\u036b\u0343a\u0329\u030dl\u0348g\u0351o \u1112\u1161\u11ab ﷺ ﬁ",
    "zero\u200bwidth \u200e\u200f\ufeff soft\u00adhyphen \u2028\u2029 \u3000wide \x00\x01\x07\x1b[0m\x7f",
    "planes \U00010348 \U0001d54f \U0002f804 \U000e0041 \U000f0000 \U0010ffff \ufffd",
    "<|im_start|>system\nYou are<|im_end|>\n<|im_start|>user\n  12<|im_end|>",
    "a<|endoftext|>b <|im_end|><|im_end|> <|im_ end|> <|im_start |> <repo_name><empty_output>x",
    "$%^&*()_+-=[]{}|;':\",./<>?`~ ... !!! ??? --- === *** ###",
    "https://example.com/a?b=c&d=%20#e user@example.org @name #tag",
    "supercalifragilisticexpialidocious antidisestablishmentarianism" * 3,
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" + "ab" * 50 + "\n" * 33,
]
PARTS = [
    *"  \n\t\r0123456789abcXYZ'.,:;!?-_(){}[]<>/\\\"@#$%^&*+=~`|é中日ñ\u0301😀\u200d👩¼²٣",
    *[
        "\u00a0",
        "\x04",
        "\U000f0000",
        "'s",
        "'ll",
        " 1",
        "  2",
        "\n3",
        "the",
        " of",
        "<|im_start|>",
        "<|im_end|>",
        "<empty_output>",
    ],
]


def corpus() -> list[str]:
    """Hard strings, every character of Unicode in three surroundings, and 20,000 random mixtures."""
    every = map(chr, range(0x110000))
    characters = [x for x in every if unicodedata.category(x) not in ("Cn", "Cs", "Co")]
    surrounded = [text for x in characters for text in (x, f"a{x}b", f" {x}{x} ")]
    draw = random.Random(0)
    mixed = ["".join(draw.choices(PARTS, k=draw.randint(1, 16))) for _ in range(20_000)]
    return [*HARD, *surrounded, *mixed]


def digits_matter(text: str) -> bool:
    """Whether a number stands where splitting it off can change what is merged."""
    return any(
        unicodedata.category(x)[0] == "N"
        and (not x.isascii() or (text[max(0, i - 2) : i].isspace() and i > 1))
        for i, x in enumerate(text)
    )


def of_transformers(path: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer


def of_ours(path: Path) -> Tokenizer:
    return Tokenizer.from_str(open_checkpoint(path).tokenizer().tokenizer_json.decode())


def ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Without BOS, which transformers puts before every text of a llama whatever `add_bos_token` says."""
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


def different(ours: Tokenizer, theirs: Tokenizer, texts: list[str]) -> list[str]:
    pairs = zip(texts, ids(ours, texts), ids(theirs, texts), strict=True)
    return [text for text, one, other in pairs if one != other]


@pytest.mark.filterwarnings("ignore")
def test_smollm2_ids_are_those_of_transformers(smollm2: Path) -> None:
    texts = corpus()
    ours, theirs = of_ours(smollm2), of_transformers(smollm2)
    digits = different(ours, theirs, texts)
    assert [text for text in digits if not digits_matter(text)] == []
    theirs.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    assert different(ours, theirs, texts) == []
    matter = sum(map(digits_matter, texts))
    print(
        f"\n{len(texts):,} texts: equal to transformers as it is on {len(texts) - len(digits):,} "
        f"(all {len(texts) - matter:,} without a number behind a run of space or beyond ASCII), "
        f"on all {len(texts):,} when it splits words as the file says"
    )


@pytest.mark.filterwarnings("ignore")
def test_smollm2_text_survives(smollm2: Path) -> None:
    """A plain byte-level decoder: what is encoded comes back, but for bytes without a token."""
    ours = of_ours(smollm2)
    unknown = ours.token_to_id("<|endoftext|>")
    texts = corpus()
    encoded = [(text, i) for text, i in zip(texts, ids(ours, texts), strict=True) if unknown not in i]
    decoded = ours.decode_batch([i for _, i in encoded], skip_special_tokens=False)
    assert [text for (text, _), back in zip(encoded, decoded, strict=True) if back != text] == []
    assert len(encoded) > 400_000


@pytest.mark.filterwarnings("ignore")
def test_smollm2_has_no_token_with_two_digits(smollm2: Path) -> None:
    """Evidence, in the file itself, that it was trained with every digit alone."""
    tokens = of_ours(smollm2).get_vocab()
    assert sorted(token for token in tokens if any(map(str.isdecimal, token))) == list("0123456789")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_ids_are_those_of_transformers(prefix: bool, tmp_path: Path) -> None:
    draw = random.Random(1)
    letters = [*"▁abcde", "é"]
    words = sorted({"".join(draw.choices(letters, k=draw.randint(2, 5))) for _ in range(2000)})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *letters, *words]
    path = write_llama(
        tmp_path / "x.gguf",
        {
            "general.name": "pieces",
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(tokens) - 259)],
            "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)],
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.add_space_prefix": prefix,
        },
    )
    ours, theirs = of_ours(path), of_transformers(path)
    parts = [*"  abcdeéxy中😀\n", "</s>"]
    texts = ["".join(draw.choices(parts, k=draw.randint(0, 30))) for _ in range(5000)]
    assert different(ours, theirs, texts) == []
    encoded = ids(ours, texts)
    assert ours.decode_batch(encoded) == theirs.decode_batch(encoded)
