"""Tokens that stand before and behind every text. Knows no checkpoint format."""

from tokenizers import Tokenizer, processors


def surround(tokenizer: Tokenizer, bos: str | None, eos: str | None) -> None:
    """Make `tokenizer` put `bos` before and `eos` behind every text; None for neither."""
    before = [bos] if bos is not None else []
    behind = [eos] if eos is not None else []
    second = [*(f"{text}:1" for text in before), "$B:1", *(f"{text}:1" for text in behind)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *behind],
        pair=[*before, "$A", *behind, *second],
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in dict.fromkeys(before + behind)],
    )
