"""`sardonyx run`: which word is what, the answer alone on stdout, and every sampling option."""

import msgspec
import pytest

from command_line import Call
from sardonyx.runtime.cli import first_use
from sardonyx.runtime.cli.sampling import ANSWER_TOKENS, with_given
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.library import DEFAULT_MODEL, Library
from sardonyx.runtime.manifest import write_manifest
from sardonyx.runtime.params import SamplingParams
from scripted_llm import VOCABULARY, scripted_llm, scripted_llm_manifest

Loaded = list[tuple[str, int | None]]


def test_the_answer_is_on_stdout_and_the_figures_are_on_stderr(call: Call, parrot: Loaded) -> None:
    result = call("run", "model", "Hello 🦜")
    assert (result.code, result.out) == (0, "Hello 🦜\n")
    assert result.err.startswith("9 prompt tokens, 8 generated, first token after ")
    assert result.err.endswith(" tokens/s\n")
    assert parrot == [("model", None)]


@pytest.mark.parametrize(
    ("words", "stdin", "model"),
    [
        (["Hello"], "not read", DEFAULT_MODEL),
        (["mine", "Hello"], "not read", "mine"),
        (["mine", "-"], "Hello\n", "mine"),
        (["-"], "Hello", DEFAULT_MODEL),
        ([], "Hello\n", DEFAULT_MODEL),
        (["smollm2-135m"], "Hello", "smollm2-135m"),
        (["smollm2-135m:fp32"], "Hello", "smollm2-135m:fp32"),
    ],
)
def test_model_and_prompt(call: Call, parrot: Loaded, words: list[str], stdin: str, model: str) -> None:
    assert call("run", *words, stdin=stdin).out == "Hello\n"
    assert parrot == [(model, None)]


def test_a_lone_word_that_names_an_artifact_is_the_model(
    call: Call, parrot: Loaded, library: Library
) -> None:
    folder = library.artifact_folder("mine", "int4")
    folder.mkdir(parents=True)
    write_manifest(folder, scripted_llm_manifest())
    assert call("run", "mine-int4", stdin="Hello").out == "Hello\n"
    assert parrot == [("mine-int4", None)]


@pytest.mark.parametrize("words", [[""], [" \n"], ["-"], ["smollm2-135m"], ["mine", "-"], []])
def test_an_empty_prompt_is_refused(call: Call, parrot: Loaded, words: list[str]) -> None:
    result = call("run", *words, stdin="\n")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: the prompt is empty")
    assert parrot == []


def test_broken_bytes_on_stdin_are_refused(call: Call, parrot: Loaded) -> None:
    result = call("run", stdin=b"caf\xe9")
    assert result.err == "error: the prompt on stdin is not UTF-8 text (byte 3)\n"


def test_a_prompt_without_quotes_is_refused(call: Call, parrot: Loaded) -> None:
    result = call("run", "What", "is", "an", "onyx?")
    assert result.code == 2
    assert "unexpected extra argument" in result.err


def test_raw_text_is_continued_without_a_template(call: Call, parrot: Loaded) -> None:
    result = call("run", "m", "Hello", "--raw", "--max-tokens", "3")
    assert result.out == "...\n"
    assert result.err.startswith("5 prompt tokens, 3 generated")
    assert result.err.endswith("; cut off after --max-tokens 3\n")


def test_system_comes_before_the_prompt(call: Call, parrot: Loaded) -> None:
    assert call("run", "m", "Hello", "--system", "Be brief").err.startswith("16 prompt tokens")
    assert call("run", "m", "Hello", "--system", "x", "--raw").err.startswith("error: --system belongs")


def test_without_a_chat_template_it_says_so(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_use, "load", lambda *_: scripted_llm(template=None))
    result = call("run", "m", "Hello", "--max-tokens", "2")
    assert result.out == "..\n"
    assert result.err.startswith("parrot has no chat template")
    assert call("run", "m", "Hello", "--system", "x").err.startswith("error: parrot has no chat template")


def test_options_reach_the_model(call: Call, parrot: Loaded) -> None:
    assert call("run", "m", "Hello", "--stop", "l", "--stop", "x").out == "He\n"
    assert call("run", "m", "Hello", "--max-tokens", "2", "--threads", "3").out == "He\n"
    assert call("run", "m", "Hello", "--stop-token-id", str(VOCABULARY.index("l"))).out == "He\n"
    assert parrot[1] == ("m", 3)


def test_a_prompt_longer_than_the_context_is_refused(call: Call, parrot: Loaded) -> None:
    result = call("run", "m", "x" * 300)
    assert (result.code, result.out) == (2, "")
    assert "context" in result.err or "positions" in result.err


def test_what_is_not_given_stays_as_the_model_has_it() -> None:
    defaults = SamplingParams(temperature=0.7, top_k=5, max_tokens=9)
    assert with_given(defaults, {"top_k": 0}) == msgspec.structs.replace(defaults, top_k=0)


def test_an_answer_has_a_length_by_default() -> None:
    """A small model repeats itself until the context is full, which takes minutes."""
    assert with_given(SamplingParams(), {}).max_tokens == ANSWER_TOKENS
    assert with_given(SamplingParams(), {"max_tokens": 7}).max_tokens == 7
    with pytest.raises(RequestError, match="top_p=2"):
        with_given(SamplingParams(), {"top_p": 2.0})


def test_an_option_out_of_range_is_refused(call: Call, parrot: Loaded) -> None:
    result = call("run", "m", "Hello", "--temperature", "-1")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: temperature=-1.0 is out of range")
