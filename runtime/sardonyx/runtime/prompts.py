"""What a prompt may be, and the token ids that it is fed as. Knows texts and tokens, no model."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeAlias

from sardonyx.runtime.chat_template import ChatTemplate
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.manifest import Manifest
from sardonyx.runtime.tokenizer import Tokenizer

Message: TypeAlias = Mapping[str, Any]
Prompt: TypeAlias = str | Sequence[int] | Sequence[Message]
"""Text as it is, token ids, or the messages of a chat."""
Text: TypeAlias = str | Sequence[int]
"""Text as it is, or token ids."""

KINDS = "a text, token ids or the messages of a chat"


class Prompts:
    """Encodes the prompts of one model. Raises RequestError for what is no prompt."""

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, template: ChatTemplate | None) -> None:
        self._name = manifest.name
        self._vocab_size = manifest.vocab_size
        self._tokenizer = tokenizer
        self._template = template

    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt."""
        known = self._as_text_or_ids(prompt)
        return known if isinstance(known, list) else self._tokenizer.encode(*known)

    def encode_before(self, prompt: Prompt, texts: Sequence[Text]) -> tuple[list[int], list[list[int]]]:
        """The tokens of a prompt, and those of each text behind it.

        A tokenizer may draw the end of the prompt and the beginning of a text into one token. So each text is
        encoded together with the prompt, and counted to the prompt is what all begin with that way; what is
        left of the prompt belongs to every text. Token ids are joined as they are. Raises RequestError.
        """
        if not texts:
            raise RequestError("there are no candidates; give one at least")
        known = self._as_text_or_ids(prompt)
        if isinstance(known, list):
            joined = [known + self._ids(text) for text in texts]
            alone = known
        else:
            before, special = known
            alone = self._tokenizer.encode(before, special)
            joined = [
                self._tokenizer.encode(before + text, special)
                if isinstance(text, str)
                else alone + self._ids(text)
                for text in texts
            ]
        kept = min(_common(alone, whole) for whole in joined)
        for text, whole in zip(texts, joined, strict=True):
            if len(whole) == kept:
                raise RequestError(f"{text!r} adds no token to the prompt")
        if not kept:
            raise RequestError("the prompt is empty; give it at least one token")
        return alone[:kept], [whole[kept:] for whole in joined]

    def beginning(self, prompt: Prompt) -> list[int]:
        """The tokens that all prompts have in common that go on from this one: of a chat, whatever is said
        next.
        """
        parts: list[Any] = [] if isinstance(prompt, str) else list(prompt)
        if not parts or not isinstance(parts[-1], Mapping):
            return self.encode(prompt)
        role = "assistant" if parts[-1].get("role") == "user" else "user"
        one, other = (self.encode([*parts, {"role": role, "content": text}]) for text in ("a", "B"))
        return one[: _common(one, other)]

    def check_tokens(self, what: str, tokens: Iterable[Any]) -> list[int]:
        """Token ids, if that is what they are."""
        tokens = list(tokens)
        for place, token in enumerate(tokens):
            if not isinstance(token, Integral) or isinstance(token, bool):
                raise RequestError(f"{what}[{place}] is {token!r}; a prompt is {KINDS}")
            if not 0 <= int(token) < self._vocab_size:
                raise RequestError(
                    f"{what}[{place}] is {token}; the vocabulary ends at {self._vocab_size - 1}"
                )
        return [int(token) for token in tokens]

    def _ids(self, text: Text) -> list[int]:
        if isinstance(text, str):
            return self._tokenizer.encode(text, add_special_tokens=False)
        return self.check_tokens("candidate", text)

    def _as_text_or_ids(self, prompt: Prompt) -> list[int] | tuple[str, bool]:
        """Token ids, or a text and whether special tokens are to be added to it."""
        if isinstance(prompt, str):
            return prompt, True
        if isinstance(prompt, bytes) or not isinstance(prompt, Iterable):
            raise RequestError(f"a prompt is {KINDS}, not of type {type(prompt).__name__}")
        parts: list[Any] = list(prompt)
        if not parts or not all(isinstance(part, Mapping) for part in parts):
            return self.check_tokens("prompt", parts)
        if self._template is None:
            raise RequestError(f"{self._name} has no chat template; give the prompt as plain text")
        return self._template.render(parts, add_generation_prompt=True), False


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """With how many equal tokens both begin."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
