"""Texts of a request as the tokens that they may be written with: bad words, and DRY's sequence breakers.

Knows the tokenizer; what is done with the tokens is not known here.
"""

from functools import cached_property

import msgspec

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.params import SamplingParams, Word
from sardonyx.runtime.tokenizer import Tokenizer

REMEMBERED = 64
"""Breakers: whoever asks may think of new ones for ever."""


class Phrases:
    """Turns texts into tokens, and remembers some of those that took long."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._breakers: dict[str, list[tuple[int, ...]]] = {}

    def resolve(self, params: SamplingParams) -> SamplingParams:
        """The same request with token ids in place of texts."""
        if any(isinstance(word, str) for word in params.bad_words):
            words = [ids for word in params.bad_words for ids in self._written(word)]
            params = msgspec.structs.replace(params, bad_words=tuple(dict.fromkeys(words)))
        if params.dry_multiplier:
            found = [ids for text in params.dry_sequence_breakers for ids in self._breaking(text)]
            params = msgspec.structs.replace(params, dry_sequence_breakers=tuple(dict.fromkeys(found)))
        return params

    def _written(self, word: Word) -> list[tuple[int, ...]]:
        """How the tokenizer writes a word, alone and behind a space."""
        if not isinstance(word, str):
            return [word]
        ways = [tuple(self._tokenizer.encode(text, add_special_tokens=False)) for text in (word, f" {word}")]
        if not all(ways):
            raise RequestError(f"bad_words: {word!r} is made of no tokens")
        return ways

    def _breaking(self, text: Word) -> list[tuple[int, ...]]:
        """Tokens with which a breaker has come: each that contains it; and each that ends with a beginning of
        it, with the tokens of the rest.
        """
        if not isinstance(text, str):
            return [text]
        found = self._breakers.get(text)
        if found is None:
            rests = {
                text[:cut]: tuple(self._tokenizer.encode(text[cut:], add_special_tokens=False))
                for cut in range(1, len(text))
            }
            found = [
                (token, *rest)
                for token, written in enumerate(self._texts)
                for begun, rest in ({"": ()} if text in written else rests).items()
                if written.endswith(begun)
            ]
            if len(self._breakers) >= REMEMBERED:
                self._breakers.clear()
            self._breakers[text] = found
        return found

    @cached_property
    def _texts(self) -> list[str]:
        """The text of every token alone."""
        decode = self._tokenizer.decode
        return [decode([token], skip_special_tokens=False) for token in range(self._tokenizer.vocab_size)]
