"""`sardonyx run`: one prompt, one answer."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sardonyx.runtime.cli.sampling import Given, sampling_options, with_given
from sardonyx.runtime.errors import RequestError

if TYPE_CHECKING:
    from sardonyx.runtime.answer import Completion
    from sardonyx.runtime.llm import LLM
    from sardonyx.runtime.prompts import Prompt


@sampling_options
def command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Artifact folder, model name or NAME:RECIPE.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="The text; - or nothing reads stdin.")
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Instructions before the conversation.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text itself: no chat template.")] = False,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="CPU threads.")] = None,
    *,
    sampling: Given,
) -> None:
    """Answer one prompt, as it is written.

    MODEL may be left out: then it is smollm2-135m, prepared on first use.
    The answer goes to stdout, its figures to stderr.
    """
    from sardonyx.runtime.cli.first_use import load
    from sardonyx.runtime.cli.terminal import say, usage_text, write_answer

    if raw and system:
        raise RequestError("--system belongs to the chat template, which --raw leaves out")
    name, text = model_and_prompt([word for word in (model, prompt) if word is not None])
    llm = load(name, threads)
    params = with_given(llm.default_params, sampling)
    stream = llm.stream(_prompt(llm, text, utf8(system or ""), raw), params)
    write_answer(stream)
    say(usage_text(stream.completion.usage) + _cut_off(stream.completion, params.max_tokens))


def _cut_off(completion: "Completion", limit: int | None) -> str:
    if completion.finish_reason != "length":
        return ""
    limited = completion.usage.completion_tokens == limit
    return f"; cut off after --max-tokens {limit}" if limited else "; cut off: the context is full"


def model_and_prompt(words: list[str]) -> tuple[str, str]:
    """MODEL and PROMPT of the words typed. One alone is the prompt, unless it names a model.

    Raises RequestError when there is no prompt, or nothing in it.
    """
    from sardonyx.runtime.cli.first_use import is_model
    from sardonyx.runtime.library import DEFAULT_MODEL

    if len(words) == 1:
        words = [words[0], "-"] if is_model(words[0]) else [DEFAULT_MODEL, words[0]]
    model, text = words or (DEFAULT_MODEL, "-")
    text = _standard_input() if text == "-" else utf8(text)
    if not text.strip():
        raise RequestError('the prompt is empty; give one: sardonyx run "What is an onyx?"')
    return model, text


def utf8(argument: str) -> str:
    """An argument as the text that was typed, though the locale may have read its bytes otherwise."""
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        raise RequestError(f"{argument!a} is not UTF-8 text") from None


def _standard_input() -> str:
    if sys.stdin.isatty():
        raise RequestError('no prompt; give one: sardonyx run "What is an onyx?"')
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise RequestError(f"the prompt on stdin is not UTF-8 text (byte {error.start})") from None


def _prompt(llm: "LLM", text: str, system: str, raw: bool) -> "Prompt":
    from sardonyx.runtime.cli.terminal import say

    if raw:
        return text
    if llm.chat_template is None:
        if system:
            raise RequestError(f"{llm.manifest.name} has no chat template, so there is no place for --system")
        say(f"{llm.manifest.name} has no chat template: it continues the text as it is (as with --raw)")
        return text
    instructions = [{"role": "system", "content": system}] if system else []
    return [*instructions, {"role": "user", "content": text}]
