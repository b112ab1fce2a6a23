"""A conversation and its /commands: what was said, what it takes of the context, and where an answer goes.

It knows nothing of how lines are typed.
"""

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from sardonyx.runtime.cli.terminal import say, usage_text, write_answer
from sardonyx.runtime.errors import SardonyxError

if TYPE_CHECKING:
    from sardonyx.runtime.answer import Usage
    from sardonyx.runtime.llm import LLM
    from sardonyx.runtime.params import SamplingParams
    from sardonyx.runtime.strategies import Algorithm
    from sardonyx.runtime.stream import Stream

Command = Callable[[str], bool]
"""Takes what stands behind the command's name; False ends the conversation. Its docstring is its help."""


class Conversation:
    """The messages so far and what can be done with them. `take` is given one typed message at a time."""

    def __init__(
        self, llm: "LLM", params: "SamplingParams", system: str, algorithm: "Algorithm | None" = None
    ) -> None:
        self._llm = llm
        self._params = params
        self._options = () if algorithm is None else (algorithm,)
        self._system = system
        self._turns: list[dict[str, str]] = []
        self._usages: list[Usage] = []

    @cached_property
    def commands(self) -> Mapping[str, Command]:
        """By the name they are typed as."""
        return {
            "/help": self._help,
            "/reset": self._reset,
            "/system": self._set_system,
            "/save": self._save,
            "/stats": self._stats,
            "/exit": self._exit,
        }

    @property
    def messages(self) -> list[dict[str, str]]:
        """What the model is given: the instructions, if there are any, and all that was said."""
        instructions = [{"role": "system", "content": self._system}] if self._system else []
        return [*instructions, *self._turns]

    def take(self, text: str) -> bool:
        """Answer a message or obey a /command. False when it asks to leave."""
        if not text.strip():
            return True
        name, _, rest = text.strip().partition(" ")
        if command := self.commands.get(name):
            return command(rest.strip())
        if name.startswith("/") and "/" not in name[1:]:  # a path is something one may talk about
            near = get_close_matches(name, self.commands, n=1)
            say(
                f"{name}: no such command; "
                + (f"did you mean {near[0]}?" if near else "/help shows them all")
            )
            return True
        self._answer(text)
        return True

    def _answer(self, text: str) -> None:
        """Answer, and remember both sides. What cannot be answered is not remembered."""
        self._turns.append({"role": "user", "content": text})
        try:
            stream = self._llm.stream(self.messages, self._params, *self._options)
            write_answer(until_interrupt(stream))
        except SardonyxError as error:
            self._turns.pop()
            say(f"error: {error} (/reset starts a new conversation)" if self._turns else f"error: {error}")
            return
        answer = stream.completion
        self._turns.append({"role": "assistant", "content": answer.text})
        self._usages.append(answer.usage)
        if answer.finish_reason == "cancelled":
            say("(stopped)")
        elif answer.finish_reason == "length":
            say(self._why_cut_off(answer.usage))

    def _why_cut_off(self, usage: "Usage") -> str:
        if usage.completion_tokens == self._params.max_tokens:
            return f"(cut off after --max-tokens {self._params.max_tokens})"
        context = self._llm.context_length
        return f"(cut off: the context of {context} tokens is full; /reset starts a new conversation)"

    def _help(self, _: str) -> bool:
        """show this"""
        for name, command in self.commands.items():
            say(f"{name:8} {command.__doc__}")
        say(
            '\nCtrl-C stops an answer. For several lines, end each with \\, or put them between lines of """.'
        )
        return True

    def _reset(self, _: str) -> bool:
        """forget what was said; the instructions stay"""
        self._turns.clear()
        say("(a new conversation)")
        return True

    def _set_system(self, text: str) -> bool:
        """TEXT: set the instructions before the conversation; without TEXT, show them"""
        if text:
            self._system = text
            say("(from the next answer on)")
        else:
            say(self._system or "(none)")
        return True

    def _save(self, name: str) -> bool:
        """FILE: write the conversation to a new file, .json or else plain text"""
        path = Path(name).expanduser()
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(self._as_json() if path.suffix == ".json" else self._as_text())
        except OSError as error:
            say(f"error: {name or '/save'}: {error.strerror}; say /save and the name of a new file")
        else:
            say(f"(saved {len(self.messages)} messages to {path})")
        return True

    def _as_json(self) -> str:
        return json.dumps(self.messages, ensure_ascii=False, indent=2) + "\n"

    def _as_text(self) -> str:
        return "\n".join(f"{message['role']}: {message['content']}\n" for message in self.messages)

    def _stats(self, _: str) -> bool:
        """show the figures of the last answer and of the conversation"""
        if not self._usages:
            say("(nothing has been answered yet)")
            return True
        last = self._usages[-1]
        say(usage_text([last]))
        generated = sum(usage.completion_tokens for usage in self._usages)
        answers = "1 answer" if len(self._usages) == 1 else f"{len(self._usages)} answers"
        say(f"{answers}, {generated} tokens generated in all")
        if self._turns:
            context = self._llm.context_length
            used = last.prompt_tokens + last.completion_tokens - last.forgotten_tokens
            say(f"context: {used} of {context} tokens, {used / context:.0%}")
        return True

    def _exit(self, _: str) -> bool:
        """leave (or Ctrl-D)"""
        return False


@contextmanager
def noticed_interrupt() -> Iterator[Callable[[], bool]]:
    """Within the block the first Ctrl-C raises nothing; the function given tells whether it came."""
    pressed = False

    def notice(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, notice)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def until_interrupt(stream: "Stream") -> Iterator[str]:
    """The pieces of an answer, cancelled between two of them by Ctrl-C."""
    with noticed_interrupt() as pressed:
        for piece in stream:
            yield piece
            if pressed():
                stream.cancel()
                return
