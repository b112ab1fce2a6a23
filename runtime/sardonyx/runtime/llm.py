"""LLM: an artifact ready to answer. The facade that users meet; all work is done by what it puts together."""

import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from numbers import Integral
from pathlib import Path
from typing import Any
from weakref import finalize

import msgspec

from sardonyx.runtime.answer import Completion, Stopwatch, TextAnswer
from sardonyx.runtime.backends.base import Float32, Program
from sardonyx.runtime.backends.ort import OrtProgram
from sardonyx.runtime.chat_template import ChatTemplate
from sardonyx.runtime.engine import Engine, Task
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.integrity import checking
from sardonyx.runtime.logits import Setting, make_picker
from sardonyx.runtime.manifest import CHAT_TEMPLATE_NAME, Manifest, read_manifest
from sardonyx.runtime.model import Model
from sardonyx.runtime.params import SamplingParams, model_defaults
from sardonyx.runtime.phrases import Phrases
from sardonyx.runtime.strategies import Feed, Strategy
from sardonyx.runtime.strategies.sample import sample
from sardonyx.runtime.threads import usable_cores
from sardonyx.runtime.tokenizer import Tokenizer

Message = Mapping[str, Any]
Prompt = str | Sequence[int] | Sequence[Message]
"""Text as it is, token ids, or the messages of a chat."""

PROMPT_KINDS = "a text, token ids or the messages of a chat"

log = logging.getLogger(__name__)


class LLM:
    """A language model that answers. Load one with `LLM.load`; one thread at a time may use it."""

    def __init__(
        self, manifest: Manifest, tokenizer: Tokenizer, template: ChatTemplate | None, program: Program
    ) -> None:
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.chat_template = template
        self.default_params, ignored = model_defaults(manifest.generation, manifest.context_length)
        for setting, value in ignored.items():
            log.warning("%s: %s=%r of its generation config is not followed", manifest.name, setting, value)
        self._phrases = Phrases(tokenizer)
        self._program = program
        self._model = Model(manifest, program)
        self._engine = Engine(self._model)

    @classmethod
    def load(
        cls, folder: Path | str, *, threads: int | None = None, check: bool = True, mapped: bool = False
    ) -> "LLM":
        """Load an artifact folder.

        `threads` defaults to the cores that this process may use. `check` compares every file with the hash
        it was written with, while the model loads. `mapped` uses the weights as they lie in the file instead
        of a copy arranged for speed: a float32 model then takes a fifth of the memory of its own and is as
        fast, but gives batched rows other last bits; a quantized one becomes unusably slow. Raises
        ArtifactError naming the file that is missing, cut or altered.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if threads is not None and threads < 1:
            raise RequestError(f"threads={threads}: at least 1 is needed")
        with checking(folder, manifest) if check else nullcontext():
            program = OrtProgram(folder, manifest, threads or usable_cores(), mapped=mapped)
            tokenizer = Tokenizer.load(folder)
            template = _template(folder, manifest)
        return cls(manifest, tokenizer, template, program)

    def generate(self, prompt: Prompt, params: SamplingParams | None = None) -> Completion:
        """Answer a prompt and wait for the whole answer. Raises RequestError for what cannot be honoured."""
        stream = self.stream(prompt, params)
        for _ in stream:
            pass
        return stream.completion

    def chat(self, messages: Sequence[Message], params: SamplingParams | None = None) -> Completion:
        """Answer the last of a chat's messages: `[{"role": "user", "content": "Hello"}]`."""
        if isinstance(messages, str):
            raise RequestError("chat takes messages; for a text as it is there is generate")
        return self.generate(messages, params)

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> "Stream":
        """Answer a prompt piece by piece: iterate over the result. Raises RequestError at once, before any
        piece.
        """
        watch = Stopwatch(lambda: self._program.run_s)
        params = params or self.default_params
        ids = self.encode(prompt)
        room = self.manifest.context_length - len(ids)
        if not ids:
            raise RequestError("the prompt is empty; give it at least one token")
        if room < 1:
            raise RequestError(
                f"the prompt has {len(ids)} tokens, but the model holds {self.manifest.context_length} "
                "positions, prompt and answer together; shorten the prompt"
            )
        self._check_tokens("stop_token_ids", params.stop_token_ids)
        ends = () if params.ignore_eos else tuple(self.manifest.tokens.eos)
        params = msgspec.structs.replace(params, stop_token_ids=(*params.stop_token_ids, *ends))
        params = self._phrases.resolve(params)
        setting = Setting(len(ids), ends, self.manifest.vocab_size)
        answer = TextAnswer(ids, params, self.tokenizer, room, watch)
        seed = secrets.randbits(63) if params.seed is None else params.seed
        pick = make_picker(params, seed, setting, answer.logprobs)
        task = self._engine.submit(sample(answer, pick))
        return Stream(self._engine, task, answer)

    def logits(self, *feeds: Feed) -> list[Sequence[Float32]]:
        """Logits of tokens that are given, not generated: what the model answers to these feeds, one after
        another, in rows of their own. For each feed, for each of its rows: `[wanted, vocab]`.

        Raises RequestError above the context length.
        """
        answers: list[Sequence[Float32]] = []
        task = self._engine.submit(_asked(feeds, answers))
        try:
            while not task.done:
                self._engine.step()
        finally:
            self._engine.cancel(task)
        if task.error is not None:
            raise task.error
        return answers

    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids that a prompt is fed as. Raises RequestError for what is no prompt."""
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt)
        if isinstance(prompt, bytes) or not isinstance(prompt, Iterable):
            raise RequestError(f"a prompt is {PROMPT_KINDS}, not of type {type(prompt).__name__}")
        parts: list[Any] = list(prompt)
        if parts and all(isinstance(part, Mapping) for part in parts):
            return self._encode_chat(parts)
        self._check_tokens("prompt", parts)
        return [int(token) for token in parts]

    def _encode_chat(self, messages: Sequence[Message]) -> list[int]:
        if self.chat_template is None:
            raise RequestError(f"{self.manifest.name} has no chat template; give the prompt as plain text")
        text = self.chat_template.render(messages, add_generation_prompt=True)
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _check_tokens(self, what: str, tokens: Sequence[Any]) -> None:
        for place, token in enumerate(tokens):
            if not isinstance(token, Integral) or isinstance(token, bool):
                raise RequestError(f"{what}[{place}] is {token!r}; a prompt is {PROMPT_KINDS}")
            if not 0 <= int(token) < self.manifest.vocab_size:
                raise RequestError(
                    f"{what}[{place}] is {token}; the vocabulary ends at {self.manifest.vocab_size - 1}"
                )


class Stream:
    """An answer on its way: iterate for pieces of text. Leaving it unfinished, or dropping it, cancels it."""

    def __init__(self, engine: Engine, task: Task, answer: TextAnswer) -> None:
        self._engine = engine
        self._task = task
        self._answer = answer
        finalize(self, engine.cancel, task).atexit = False

    def __iter__(self) -> Iterator[str]:
        try:
            while True:
                if text := self._answer.fresh_text():  # perhaps of a step that another stream took
                    yield text
                elif self._task.done:
                    break
                else:
                    self._engine.step()
        finally:
            self.cancel()
        if self._task.error is not None:
            raise self._task.error

    def cancel(self) -> None:
        """Stop here. The completion keeps what has come; harmless when the answer is complete."""
        if not self._task.done:
            self._engine.cancel(self._task)
            self._answer.finish("cancelled")

    @property
    def completion(self) -> Completion:
        """The answer so far, or the whole one when the iteration has ended."""
        return self._answer.completion


def _asked(feeds: Sequence[Feed], answers: list[Sequence[Float32]]) -> Strategy:
    for feed in feeds:
        logits = yield feed
        answers.append(logits)


def _template(folder: Path, manifest: Manifest) -> ChatTemplate | None:
    path = folder / CHAT_TEMPLATE_NAME
    return ChatTemplate(path.read_text("utf-8"), manifest.tokens.texts) if path.is_file() else None
