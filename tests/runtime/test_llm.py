"""The facade: what a prompt may be, how an answer comes and ends, what it leaves behind."""

import gc
import itertools
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from random_models import export_random
from sardonyx.models.llama import EXAMPLE
from sardonyx.runtime import LLM, SamplingParams
from sardonyx.runtime.backends.scripted import Script, ScriptedProgram
from sardonyx.runtime.errors import ArtifactError, RequestError
from sardonyx.runtime.manifest import MODEL_NAME, TOKENIZER_NAME
from sardonyx.runtime.strategies import Feed
from scripted_llm import TEMPLATE, VOCABULARY, script, scripted_llm

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llm") / "artifact"
    export_random(EXAMPLE, folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LLM:
    return LLM.load(folder, threads=1)


@pytest.fixture
def llm(loaded: LLM) -> Iterator[LLM]:
    """A real model of random weights, with which a test leaves no row behind."""
    yield loaded
    assert len(loaded._model.arena) == 0


@pytest.fixture
def parrot() -> Iterator[LLM]:
    """A scripted model, with which a test leaves no row behind."""
    llm = scripted_llm()
    yield llm
    assert len(llm._model.arena) == 0


def parrot_of(words: Script) -> LLM:
    llm = scripted_llm()
    return LLM(llm.manifest, llm.tokenizer, llm.chat_template, ScriptedProgram(words))


def sampling(seed: int | None = 7, **params: Any) -> SamplingParams:
    return SamplingParams(temperature=1.5, seed=seed, ignore_eos=True, **{"max_tokens": 30, **params})


# what an answer is


def test_a_chat_is_answered(parrot: LLM) -> None:
    completion = parrot.chat(HELLO)
    assert (completion.text, completion.finish_reason) == ("hello", "stop")
    assert [VOCABULARY[token] for token in completion.tokens] == [*"hello", "<end>"]


def test_pieces_joined_are_the_text(parrot: LLM) -> None:
    stream = parrot.stream(HELLO)
    assert list(stream) == list("hello")
    assert stream.completion.text == "hello"


def test_the_models_own_end_can_be_ignored(parrot: LLM) -> None:
    completion = parrot.chat(HELLO, SamplingParams(ignore_eos=True, max_tokens=9))
    assert completion.text == "hello"  # the end is a special token, and not shown
    assert (len(completion.tokens), completion.finish_reason) == (9, "length")


def test_an_answer_ends_with_the_context() -> None:
    llm = scripted_llm(context=20)
    completion = llm.generate("x" * 17)
    assert (completion.text, completion.finish_reason) == ("...", "length")


def test_a_prompt_may_fill_the_context_but_for_one_token() -> None:
    llm = scripted_llm(context=20)
    assert llm.generate("x" * 19).text == "."
    with pytest.raises(RequestError, match="the prompt has 20 tokens, but the model holds 20 positions"):
        llm.stream("x" * 20)


def test_text_ids_and_arrays_are_the_same_prompt(llm: LLM) -> None:
    ids = llm.encode("HELLO")
    prompts: list[Any] = ["HELLO", ids, tuple(ids), np.array(ids), np.array(ids, np.uint8)]
    answers = {llm.generate(prompt, SamplingParams(max_tokens=8)).tokens for prompt in prompts}
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        ([], "the prompt is empty"),
        ("", "the prompt is empty"),
        ([1, 99], r"prompt\[1\] is 99; the vocabulary ends at 98"),
        ([-1], r"prompt\[0\] is -1; the vocabulary"),
        ([1, True], r"prompt\[1\] is True; a prompt is a text, token ids or the messages of a chat"),
        ([1, 2.0], r"prompt\[1\] is 2.0; a prompt is"),
        ([[1, 2]], r"prompt\[0\] is \[1, 2\]; a prompt is"),
        (["a", "b"], r"prompt\[0\] is 'a'; a prompt is"),
        ({"role": "user", "content": "hello"}, r"prompt\[0\] is 'role'; a prompt is"),
        ([{"role": "user", "content": "hello"}, 5], r"prompt\[0\] is {.*}; a prompt is"),
        (b"abc", "a prompt is .*, not of type bytes"),
        (None, "a prompt is .*, not of type NoneType"),
        (HELLO, "random has no chat template; give the prompt as plain text"),
    ],
)
def test_what_is_no_prompt_is_refused_at_once(llm: LLM, prompt: Any, fault: str) -> None:
    with pytest.raises(RequestError, match=f"^{fault}"):
        llm.stream(prompt)


def test_a_chat_takes_messages(parrot: LLM) -> None:
    with pytest.raises(RequestError, match="chat takes messages"):
        parrot.chat("hello")  # type: ignore[arg-type]


def test_stop_ids_outside_of_the_vocabulary_are_refused(llm: LLM) -> None:
    with pytest.raises(RequestError, match=r"stop_token_ids\[1\] is 99; the vocabulary ends at 98"):
        llm.stream([1], SamplingParams(stop_token_ids=(3, 99)))


# chance


def test_a_seed_gives_the_same_answer_and_another_seed_another(llm: LLM) -> None:
    first, again, other = (llm.generate([1, 2, 3], sampling(seed)).tokens for seed in (7, 7, 8))
    assert first == again != other


def test_without_a_seed_answers_differ(llm: LLM) -> None:
    assert len({llm.generate([1, 2, 3], sampling(None)).tokens for _ in range(3)}) == 3


# a model's own defaults


def parrot_with(**generation: Any) -> LLM:
    llm = scripted_llm()
    manifest = msgspec.structs.replace(llm.manifest, generation=generation)
    return LLM(manifest, llm.tokenizer, llm.chat_template, ScriptedProgram(script))


def test_a_models_own_defaults_hold_when_nothing_is_asked_for() -> None:
    llm = parrot_with(max_new_tokens=3)
    assert llm.chat(HELLO).text == "hel"
    assert llm.chat(HELLO, SamplingParams()).text == "hello"


def test_a_model_that_asks_for_it_is_sampled_from() -> None:
    assert parrot_with(do_sample=True, top_k=4).default_params == SamplingParams(temperature=1, top_k=4)


def test_what_of_them_is_not_followed_is_said(caplog: pytest.LogCaptureFixture) -> None:
    parrot_with(num_beams=4, top_k=-1, do_sample=True, eos_token_id=0)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "parrot: num_beams=4 of its generation config is not followed"),
        (logging.WARNING, "parrot: top_k=-1 of its generation config is not followed"),
    ]


# figures


def test_usage_adds_up_and_stays(llm: LLM) -> None:
    completion = llm.generate([1, 2, 3], sampling())
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, len(completion.tokens) == 30 and 30)
    assert 0 < usage.first_token_s < usage.total_s
    assert 0 < usage.run_s < usage.total_s
    assert usage.tokens_per_second == 29 / (usage.total_s - usage.first_token_s)


def test_usage_does_not_count_what_comes_after(llm: LLM) -> None:
    stream = llm.stream([1, 2, 3], sampling())
    list(stream)
    usage = stream.completion.usage
    llm.generate([4], sampling())
    assert stream.completion.usage == usage


def test_usage_of_an_answer_that_another_stream_finished(llm: LLM) -> None:
    short, long = llm.stream([1], sampling(max_tokens=2)), llm.stream([2], sampling())
    long.wait_until(lambda: len(short.completion.tokens) == 2)
    took = short.completion.usage
    list(long)
    assert short.completion.usage == took
    list(short)
    assert short.completion.usage == took


# streams side by side


def test_streams_taken_in_turns_say_what_they_say_alone(llm: LLM) -> None:
    requests = [
        ([1, 2, 3], sampling(1)),
        ([9] * 40, sampling(2, max_tokens=12)),
        ([5], SamplingParams(max_tokens=25)),
        ([6, 7], sampling(3, stop=("a", "Z"))),
    ]
    alone = [llm.generate(*request) for request in requests]
    streams = [llm.stream(*request) for request in requests]
    pieces: list[list[str]] = [[] for _ in streams]
    for turn in itertools.zip_longest(*streams):
        for place, piece in enumerate(turn):
            pieces[place] += [piece] if piece is not None else []
    for stream, shown, expected in zip(streams, pieces, alone, strict=True):
        assert "".join(shown) == stream.completion.text == expected.text
        assert stream.completion.tokens == expected.tokens
        assert stream.completion.finish_reason == expected.finish_reason


def test_a_stream_that_another_finished_still_tells_all(parrot: LLM) -> None:
    first, second = parrot.stream(HELLO), parrot.stream([{"role": "user", "content": "a longer text"}])
    assert "".join(second) == "a longer text"
    assert "".join(first) == "hello"


# leaving early


def test_breaking_off_cancels(parrot: LLM) -> None:
    stream = parrot.stream(HELLO)
    for _ in stream:
        break
    assert len(parrot._model.arena) == 0
    assert (stream.completion.text, stream.completion.finish_reason) == ("h", "cancelled")
    assert list(stream) == []


def test_a_stream_never_looked_at_leaves_when_it_is_dropped(parrot: LLM) -> None:
    stream, other = parrot.stream(HELLO), parrot.stream(HELLO)
    pieces = iter(other)
    next(pieces)
    assert len(parrot._model.arena) == 2
    del stream
    assert len(parrot._model.arena) == 1


def test_who_leaves_within_the_prompt_has_what_was_noted_of_it(llm: LLM) -> None:
    stream = llm.stream([1, 2] * 50, SamplingParams(prompt_logprobs=0))
    llm._engine.step()
    stream.cancel()
    assert stream.completion.prompt_logprobs == (None,)


def test_a_dropped_iterator_cancels(parrot: LLM) -> None:
    stream = parrot.stream(HELLO)
    pieces = iter(stream)
    next(pieces)
    del pieces
    assert stream.completion.finish_reason == "cancelled"


def test_the_garbage_collector_may_find_a_stream_in_the_middle_of_a_step() -> None:
    def collecting(tokens: Sequence[int]) -> list[float]:
        gc.collect()
        return script(tokens)

    llm = parrot_of(collecting)
    gc.disable()
    try:
        streams = [llm.stream(HELLO) for _ in range(3)]
        cycle: list[Any] = [streams.pop(0)]
        cycle.append(cycle)
        del cycle
        assert ["".join(stream) for stream in streams] == ["hello", "hello"]
    finally:
        gc.enable()
    assert len(llm._model.arena) == 0


def test_cancelling_keeps_the_text_and_shows_what_was_held_back(parrot: LLM) -> None:
    stream = parrot.stream(HELLO, SamplingParams(stop=("lower",)))
    shown = []
    for piece in stream:
        shown.append(piece)
        if piece == "e":
            parrot._engine.step()
            stream.cancel()
    assert "".join(shown) == stream.completion.text == "hel"
    assert stream.completion.finish_reason == "cancelled"
    stream.cancel()


def test_an_unfinished_answer_says_so(parrot: LLM) -> None:
    stream = parrot.stream(HELLO)
    next(iter(stream))
    stream = parrot.stream(HELLO)
    assert (stream.completion.finish_reason, stream.completion.usage.completion_tokens) == (None, 0)


# trouble


class Trouble:
    """The parrot's script, but once, when it is asked for the time given, it raises or makes no sense."""

    def __init__(self, at: int, error: BaseException | None = None) -> None:
        self.left = at
        self.error = error

    def __call__(self, tokens: Sequence[int]) -> list[float]:
        logits = script(tokens)
        self.left -= len(tokens) > 1  # the backend asks once beforehand, for the width
        if self.left == 0:
            self.left = -1
            if self.error is not None:
                raise self.error
            return [math.nan] * len(logits)
        return logits


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("kernel")])
def test_after_an_exception_the_model_goes_on(error: BaseException) -> None:
    llm = parrot_of(Trouble(6, error))
    other = llm.stream([{"role": "user", "content": "unharmed"}])
    stream = llm.stream(HELLO)
    with pytest.raises(type(error)):
        list(stream)
    assert (stream.completion.text, stream.completion.finish_reason) == ("he", "cancelled")
    assert "".join(other) == "unharmed"
    assert llm.chat(HELLO).text == "hello"
    assert len(llm._model.arena) == 0


def test_an_error_of_one_answer_is_raised_where_that_answer_is_read() -> None:
    llm = parrot_of(Trouble(5))
    stream, other = llm.stream(HELLO), llm.stream(HELLO)
    assert "".join(other) == "hello"
    pieces = iter(stream)
    assert next(pieces) == "he"
    with pytest.raises(ArtifactError, match="no distribution"):
        next(pieces)
    assert stream.completion.finish_reason is None
    assert len(llm._model.arena) == 0


# loading


@pytest.mark.parametrize("threads", [0, -1, 513])
def test_threads_are_neither_none_nor_legion(folder: Path, threads: int) -> None:
    with pytest.raises(RequestError, match=f"threads={threads}: "):
        LLM.load(folder, threads=threads)


@pytest.mark.parametrize("name", [MODEL_NAME, TOKENIZER_NAME])
def test_an_altered_file_is_named_unless_nobody_asks(folder: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / name
    path.write_bytes(path.read_bytes().replace(b"sardonyx", b"sardonic").replace(b'"!"', b'"?"'))
    assert path.read_bytes() != (folder / name).read_bytes()
    with pytest.raises(ArtifactError, match=f"{name}: altered"):
        LLM.load(copy)


def test_what_is_not_checked_is_loaded(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / MODEL_NAME).write_bytes((copy / MODEL_NAME).read_bytes().replace(b"sardonyx", b"sardonic"))
    assert LLM.load(copy, check=False, threads=1).generate([1], SamplingParams(max_tokens=1)).tokens


def test_a_folder_may_be_given_as_text(folder: Path) -> None:
    assert LLM.load(str(folder)).chat_template is None


def test_a_chat_template_is_found(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "chat_template.jinja").write_text(TEMPLATE)
    template = LLM.load(copy, check=False).chat_template
    assert template is not None
    assert template.source == TEMPLATE


# logits of given tokens


def test_logits_of_given_tokens(llm: LLM) -> None:
    (whole,), (one, two) = llm.logits(Feed([[1, 2, 3]], wanted=3), Feed([[4], [4]], keep=[(0, 2), (0, 3)]))
    assert (whole.shape, one.shape, two.shape) == ((3, 99), (1, 99), (1, 99))
    expected = llm.logits(Feed([[1, 2, 4]]), Feed([[1, 2, 3, 4]], keep=[(0, 0)]))
    np.testing.assert_allclose(one, expected[0][0], atol=2e-5)
    np.testing.assert_allclose(two, expected[1][0], atol=2e-5)


def test_logits_above_the_context_are_refused(llm: LLM) -> None:
    with pytest.raises(RequestError, match="the model holds 128"):
        llm.logits(Feed([[1] * 129]))
