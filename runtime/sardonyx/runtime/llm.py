"""LLM: an artifact ready to answer. The facade that users meet; all work is done by what it puts together."""

import logging
import secrets
from collections.abc import Callable, Hashable, Sequence
from copy import copy
from pathlib import Path

import msgspec

from sardonyx.runtime.answer import Completion, Stopwatch, TextAnswer
from sardonyx.runtime.backends.base import Float32, Program
from sardonyx.runtime.backends.providers import MAPPED as MAPPED
from sardonyx.runtime.backends.providers import ON_CPU as ON_CPU
from sardonyx.runtime.backends.providers import Place as Place
from sardonyx.runtime.chat_template import ChatTemplate
from sardonyx.runtime.driver import Driver
from sardonyx.runtime.engine import Engine
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.loading import load_parts
from sardonyx.runtime.logits import Setting
from sardonyx.runtime.manifest import Manifest
from sardonyx.runtime.model import Memory, Model
from sardonyx.runtime.params import SamplingParams, model_defaults, noting
from sardonyx.runtime.phrases import Phrases
from sardonyx.runtime.prefixes import PrefixCache, Reuse
from sardonyx.runtime.prompts import Message, Prompt, Prompts, Text
from sardonyx.runtime.saved_prefix import SavedPrefix, read, write
from sardonyx.runtime.scores import Normalization, Scores, scored
from sardonyx.runtime.selection import Consensus, majority, mean_logprob, ranked
from sardonyx.runtime.strategies import Algorithm, Feed, Request
from sardonyx.runtime.strategies.given import given
from sardonyx.runtime.strategies.prefix import computed, pinned
from sardonyx.runtime.strategies.sample import Sample
from sardonyx.runtime.strategies.score import score
from sardonyx.runtime.stream import Stream, telling
from sardonyx.runtime.tokenizer import Tokenizer

SAMPLE = Sample()
ENDLESS = 1 << 62
MEMORY = Memory(reuse=Reuse())

log = logging.getLogger(__name__)


class LLM:
    """A language model that answers. Load one with `LLM.load`; any number of threads and coroutines may use
    it, and what they ask for is computed together. At the end of a `with` block it is closed.
    """

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        program: Program,
        exact: bool = False,
        memory: Memory = MEMORY,
    ) -> None:
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.chat_template = template
        self.default_params, ignored = model_defaults(manifest.generation, manifest.context_length)
        for setting, value in ignored.items():
            log.warning("%s: %s=%r of its generation config is not followed", manifest.name, setting, value)
        self._prompts = Prompts(manifest, tokenizer, template)
        self._phrases = Phrases(tokenizer)
        self._program = program
        self._model = Model(manifest, program, memory)
        self.context_length = self._model.context_length
        """Positions, of prompt and answer together."""
        self._engine = Engine(self._model, exact=exact)
        self._driver = Driver(self._engine)
        self._adapter = 0

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        threads: int | None = None,
        check: bool = True,
        exact: bool = False,
        memory: Memory = MEMORY,
        place: Place = ON_CPU,
    ) -> "LLM":
        """Load an artifact folder, or the graph of a neighbour (`neighbours.locate` finds it in its folder).

        `threads` defaults to the cores that this process may use. `check` compares every file with
        the hash it was written with, while the model loads. `exact` makes numbers independent of how
        the text came to be fed, to the bit: an answer is the same with guesses or without. It costs a
        tenth of the decoding speed, and up to a third for eight answers at once. `memory` limits what is
        taken besides the weights: requests that do not fit wait, and late ones give way. `place` says
        on which execution provider. Raises ArtifactError naming the file that is missing, cut or
        altered, RequestError for a provider that is not here.
        """
        parts = load_parts(Path(folder), threads, place, check=check)
        return cls(parts.manifest, parts.tokenizer, parts.template, parts.program, exact, memory)

    def adapted(self, adapter: str | None) -> "LLM":
        """This model with one of its adapters, or without: all else is shared, and what is asked of either is
        computed together. Raises RequestError for a name that it does not know.
        """
        twin = copy(self)
        twin._adapter = self.manifest.adapter_number(adapter)
        return twin

    def generate(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        algorithm: Algorithm = SAMPLE,
        adapter: str | None = None,
    ) -> Completion:
        """Answer a prompt and wait for the whole answer. Raises RequestError for what cannot be honoured."""
        return (self.adapted(adapter) if adapter else self).generate_n(prompt, 1, params, algorithm)[0]

    def generate_n(
        self, prompt: Prompt, n: int, params: SamplingParams | None = None, algorithm: Algorithm = SAMPLE
    ) -> list[Completion]:
        """n answers to one prompt, which is computed once. The first is what `generate` gives.

        They are drawn side by side, each by noise of its own, or are the n best of a search, best first: as
        many as there are.
        """
        stream = self.stream_n(prompt, n, params, algorithm)
        stream.wait()
        return stream.completions

    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        algorithm: Algorithm = SAMPLE,
    ) -> Completion:
        """Answer the last of a chat's messages: `[{"role": "user", "content": "Hello"}]`."""
        if isinstance(messages, str):
            raise RequestError("chat takes messages; for a text as it is there is generate")
        return self.generate(messages, params, algorithm)

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        algorithm: Algorithm = SAMPLE,
        priority: int = 0,
    ) -> Stream:
        """Answer a prompt piece by piece: iterate over the result, with `for` or `async for`, or `await` it.

        Raises RequestError at once, before any piece. A search has no pieces before its end. Of those who
        wait for their prompt, a lower `priority` is fed first.
        """
        return self.stream_n(prompt, 1, params, algorithm, priority)

    def best_of(
        self,
        prompt: Prompt,
        n: int,
        params: SamplingParams | None = None,
        scorer: Callable[[Completion], float] = mean_logprob,
    ) -> list[Completion]:
        """n answers, best first by a score: the mean log probability of their tokens, or a caller's."""
        return ranked(self.generate_n(prompt, n, noting(params or self.default_params)), scorer)

    def self_consistency(
        self,
        prompt: Prompt,
        n: int,
        extract: Callable[[str], Hashable | None],
        params: SamplingParams | None = None,
    ) -> Consensus:
        """What most of n answers come to: `extract` finds it in a text, None if there is nothing to find."""
        return majority(self.generate_n(prompt, n, noting(params or self.default_params)), extract)

    def score(
        self, prompt: Prompt, candidates: Sequence[Text], *, normalize: Normalization | None = None
    ) -> Scores:
        """How likely each candidate is to follow the prompt, and which is likeliest: a classifier.

        The score is the log probability of the candidate, divided by its "tokens" or "bytes" if `normalize`
        says so. The prompt is computed once, candidates side by side. Where the tokenizer draws the end of
        the prompt and the beginning of a candidate together, that end counts to all candidates.
        """
        known, tokens = self._prompts.encode_before(prompt, candidates)
        found = self._driver.run(score(known, tokens), adapter=self._adapter)
        texts = [text if isinstance(text, str) else self.tokenizer.decode(text) for text in candidates]
        return Scores(tuple(scored(*one, normalize) for one in zip(texts, tokens, found, strict=True)))

    def logits(self, *feeds: Feed) -> list[Sequence[Float32]]:
        """Logits of tokens that are given, not generated: what the model answers to these feeds, one after
        another, in rows of their own. For each feed, for each of its rows: `[wanted, vocab]`. All of them are
        computed; the prefix cache is passed by. Raises RequestError above the context length.
        """
        return self._driver.run(given(feeds), fresh=True, adapter=self._adapter)

    def save_prefix(self, prompt: Prompt, path: Path | str) -> int:
        """Compute what all texts have in common that begin with this prompt, and write it to a file for
        `load_prefix`. Returns the number of tokens. Raises RequestError for what cannot be kept; OutputError.
        """
        tokens = _prefixes(self).whole(self._prompts.beginning(prompt))
        states = self._driver.run(computed(self._model.prefixes, tokens))
        write(Path(path), self.manifest, SavedPrefix(prompt, tokens, states))
        return len(tokens)

    def load_prefix(self, path: Path | str) -> Prompt:
        """Know from now on what `save_prefix` wrote, and leave it in its file, which is mapped. Returns the
        prompt. Raises ArtifactError when the file is of another artifact, or is not what was written.
        """
        prefix = read(Path(path), self.manifest)
        prompt: Prompt = self._driver.run(pinned(_prefixes(self), prefix))
        return prompt

    def close(self) -> None:
        """Cancel what is running, and take nothing more."""
        self._engine.close()
        self._driver.wake()

    def __enter__(self) -> "LLM":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids that a prompt is fed as. Raises RequestError for what is no prompt."""
        return self._prompts.encode(prompt)

    def stream_n(
        self,
        prompt: Prompt,
        n: int,
        params: SamplingParams | None = None,
        algorithm: Algorithm = SAMPLE,
        priority: int = 0,
    ) -> Stream:
        """n answers to one prompt, as `generate_n` gives them, on their way."""
        llms: list[LLM] = [self, *algorithm.others]
        request, answers = _request(llms, prompt, n, params or self.default_params, algorithm.outgrows)
        decoding = telling(algorithm.start(request), answers)
        others, adapters = (llm._model for llm in llms[1:]), [llm._adapter for llm in llms]
        task = self._engine.submit(decoding, *others, priority=priority, adapters=adapters)
        if task.error is not None:
            raise task.error
        return Stream(self._engine, self._driver, task, answers)


def _request(
    llms: Sequence[LLM], prompt: Prompt, n: int, params: SamplingParams, outgrows: bool
) -> tuple[Request, Sequence[TextAnswer]]:
    """What is asked of the first of these models, which decodes together with the others; its answers."""
    llm = llms[0]
    for other in llms:
        _check_same_tokens(llm, other)
    watch = Stopwatch(lambda: sum(llm._program.run_s for llm in llms))
    ids = llm.encode(prompt)
    context = min(one._model.room_for(ids, outgrows) for one in llms)
    room = ENDLESS if outgrows else context - len(ids)
    if n < 1:
        raise RequestError(f"n={n} is out of range: it must be at least 1")
    params, setting = _setting(llm, params, len(ids))
    answer = TextAnswer(ids, params, llm.tokenizer, room, watch)
    answers = [answer, *(answer.fork() for _ in range(n - 1))]
    seed = secrets.randbits(63) if params.seed is None else params.seed
    return Request(answers, params, setting, seed, llm.encode, context), answers


def _prefixes(llm: LLM) -> PrefixCache:
    """Where beginnings are kept. Raises RequestError for a model with an adapter."""
    if llm._adapter:
        raise RequestError("a prefix is kept of the model without an adapter, and is of no use with one")
    return llm._model.prefixes


def _check_same_tokens(llm: LLM, other: LLM) -> None:
    """Raises RequestError unless another model's tokens mean what this one's do."""
    sizes = llm.manifest.vocab_size, other.manifest.vocab_size
    if other is not llm and (sizes[0] != sizes[1] or not llm.tokenizer.equals(other.tokenizer)):
        raise RequestError(
            f"{llm.manifest.name} and {other.manifest.name} have different tokens (of {sizes[0]} and "
            f"{sizes[1]}), so they cannot decide on one together"
        )


def _setting(llm: LLM, params: SamplingParams, prompt_tokens: int) -> tuple[SamplingParams, Setting]:
    """The parameters as a model's tokens have them. Raises RequestError."""
    llm._prompts.check_tokens("stop_token_ids", params.stop_token_ids)
    ends = () if params.ignore_eos else tuple(llm.manifest.tokens.eos)
    params = msgspec.structs.replace(params, stop_token_ids=(*params.stop_token_ids, *ends))
    return llm._phrases.resolve(params), Setting(prompt_tokens, ends, llm.manifest.vocab_size)
