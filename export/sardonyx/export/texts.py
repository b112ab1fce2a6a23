"""What quality is measured on: texts cut into windows of tokens, by kind.

The project's own texts lie in `texts/`, a kind each: prose, code, chat, many languages, numbers. A user's own
take their file's name for a kind. It knows how to cut, not what is done with the windows.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import msgspec

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.text_file import read_text

WIDTH = 256
"""Tokens of a window: enough context to be typical, little enough that its logits are held at once."""

LEAST_WIDTH = 32
"""Tokens without which a window shows nothing, and there is no room to feed it in different ways."""

DEFAULT_WINDOWS = 7
"""Of each of the project's own kinds, spread evenly over its text; a thorough measurement takes all."""

GREEDY_PROMPTS = (
    "The three most important things to pack for a walk in the mountains are",
    "def fibonacci(n: int) -> int:\n",
    "Question: Why does ice float on water?\nAnswer:",
    "Es war einmal ein alter Müller, der",
    "1, 4, 9, 16, 25,",
)

SOME_DAY = datetime(2025, 1, 1, 12)
"""What chat templates that tell the date are told: tokens must not change from day to day."""

Windows = Mapping[str, Sequence[Sequence[int]]]
"""By kind of text, token ids of equal number."""


@dataclass(frozen=True)
class Texts:
    """Windows, and in words how they were cut."""

    windows: Windows
    convention: str

    @property
    def count(self) -> int:
        """Windows in all."""
        return sum(map(len, self.windows.values()))

    @property
    def sha256(self) -> str:
        """Of all token ids: equal for equal texts cut alike."""
        return hashlib.sha256(msgspec.json.encode(self.windows, order="sorted")).hexdigest()


def own_texts(llm: LLM, *, thorough: bool = False) -> Texts:
    """The project's own texts in the tokens of a model."""
    kinds = {}
    for kind, text in _own().items():
        windows = _windows(llm, _chat_tokens(llm, text) if kind == "chat" else _tokens(llm, text))
        kinds[kind] = windows if thorough else _spread(windows, DEFAULT_WINDOWS)
    return Texts(kinds, _convention(llm))


def all_texts() -> list[str]:
    """The project's own texts as they are, of every kind."""
    return list(_own().values())


def _own() -> dict[str, str]:
    folder = files("sardonyx.export").joinpath("texts")
    by_name = sorted(folder.iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".txt"): file.read_text("utf-8") for file in by_name}


def texts_of(llm: LLM, paths: Sequence[Path]) -> Texts:
    """A user's own texts. Raises RequestError for what is missing, empty, binary or shorter than a window."""
    kinds = {}
    for path in paths:
        tokens = _tokens(llm, read_text(path))
        kinds[path.name] = _windows(llm, tokens)
        if not kinds[path.name]:
            raise RequestError(
                f"{path}: {len(tokens)} tokens, less than a window of {_width(llm)}; give a longer text"
            )
    if len(kinds) < len(paths):
        raise RequestError("two text files have the same name; rename one of them")
    return Texts(kinds, _convention(llm))


def _convention(llm: LLM) -> str:
    first = ", the first of them the beginning-of-text token" if _prefix(llm) else ""
    chat = "the model's own template" if llm.chat_template else "no template, for the model has none"
    return (
        f"windows of {_width(llm)} tokens{first}, without context from the window before; every token but a "
        f"window's first is scored; what is left at a text's end is not; the kind chat goes through {chat}"
    )


def _width(llm: LLM) -> int:
    width = min(WIDTH, llm.manifest.context_length)
    if width < LEAST_WIDTH:
        raise RequestError(f"a context of {width} is too short to measure on: {LEAST_WIDTH} is the least")
    return width


def _windows(llm: LLM, tokens: Sequence[int]) -> list[list[int]]:
    prefix = _prefix(llm)
    step = _width(llm) - len(prefix)
    return [[*prefix, *tokens[at : at + step]] for at in range(0, len(tokens) - step + 1, step)]


def _spread(windows: list[list[int]], count: int) -> list[list[int]]:
    """So many windows, the first and the last among them, at even distances."""
    if len(windows) <= count:
        return windows
    return [windows[round(i * (len(windows) - 1) / (count - 1))] for i in range(count)]


def _prefix(llm: LLM) -> list[int]:
    """The beginning-of-text token, if the tokenizer puts one in front of a text: such models need it."""
    bos = llm.manifest.tokens.bos
    return [bos] if bos is not None and llm.tokenizer.encode("")[:1] == [bos] else []


def _tokens(llm: LLM, text: str) -> list[int]:
    return llm.tokenizer.encode(text, add_special_tokens=False)


def _chat_tokens(llm: LLM, text: str) -> list[int]:
    """Conversations as the model was trained to see them; as plain text if it was not."""
    template = llm.chat_template
    if template is None:
        return _tokens(llm, text)
    rendered = (
        template.render(chat, add_generation_prompt=False, now=SOME_DAY) for chat in conversations(text)
    )
    return [token for chat in rendered for token in _tokens(llm, chat)]


def conversations(text: str) -> list[list[dict[str, str]]]:
    """Messages of a text in which `[chat]`, `[user]` and `[assistant]`, alone on a line, begin them."""
    chats: list[list[dict[str, str]]] = []
    marks = re.split(r"^\[(chat|user|assistant)\]\n", text, flags=re.MULTILINE)[1:]
    for mark, content in zip(marks[::2], marks[1::2], strict=True):
        if mark == "chat":
            chats.append([])
        else:
            chats[-1].append({"role": mark, "content": content.strip("\n")})
    return chats
