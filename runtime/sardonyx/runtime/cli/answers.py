"""How answers are shown: one or several, ranked or voted on, for people or as JSON. Asks for none."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sardonyx.runtime.cli.terminal import say, table_text, usage_text, write_answer

if TYPE_CHECKING:
    from sardonyx.runtime.answer import Completion
    from sardonyx.runtime.logits import TokenLogprobs
    from sardonyx.runtime.selection import Consensus

Decode = Callable[[Sequence[int]], str]
"""From token ids to text."""


def show(answers: "Sequence[Completion]") -> None:
    """Answers, each under a heading if there are several."""
    for place, answer in enumerate(answers, 1):
        if len(answers) > 1:
            score = "" if answer.score is None else f", score {answer.score:.4f}"
            say(f"--- {place} of {len(answers)}{score}")
        write_answer([answer.text])


def tell_logprobs(answers: "Sequence[Completion]", decode: Decode) -> None:
    """The log probabilities that were asked for."""
    prompt = answers[0].prompt_logprobs
    if prompt is not None:
        say("log probabilities of the prompt:\n" + _logprob_table(prompt, decode))
    for place, answer in enumerate(answers, 1):
        if answer.logprobs is not None:
            of = f" {place}" if len(answers) > 1 else ""
            say(f"log probabilities of the answer{of}:\n" + _logprob_table(answer.logprobs, decode))


def tell_usage(answers: "Sequence[Completion]", limit: int | None) -> None:
    """What they took, and how many ended for want of room, and of which."""
    usage = usage_text([answer.usage for answer in answers])
    cut = [answer for answer in answers if answer.finish_reason == "length"]
    many = f"{len(cut)} " if len(answers) > 1 else ""
    if cut and all(answer.usage.completion_tokens == limit for answer in cut):
        usage += f"; {many}cut off after --max-tokens {limit}"
    elif cut:
        usage += f"; {many}cut off: the context is full"
    say(usage)


def show_consensus(found: "Consensus") -> None:
    """What most answers come to, and the votes beside it."""
    if found.value is not None:
        write_answer([value_text(found.value)])
    for value, count in found.votes.items():
        say(f"{count:4} {'vote ' if count == 1 else 'votes'}  {value_text(value)}")
    if found.unparsed:
        say(f"{found.unparsed:4} came to nothing")


def value_text(value: object) -> str:
    """What was voted on, numbers without an exponent."""
    from decimal import Decimal

    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def as_json(
    answers: "Sequence[Completion]", decode: Decode, consensus: "Consensus | None" = None
) -> dict[str, Any]:
    """All that is known of answers to one prompt."""
    usage = answers[0].usage
    figures: dict[str, Any] = {}
    if consensus:
        votes = {value_text(value): count for value, count in consensus.votes.items()}
        value = None if consensus.value is None else value_text(consensus.value)
        figures["consensus"] = {"value": value, "votes": votes, "unparsed": consensus.unparsed}
    figures |= {
        "answers": [_answer(answer, decode) for answer in answers],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "forgotten_tokens": usage.forgotten_tokens,
            "completion_tokens": sum(answer.usage.completion_tokens for answer in answers),
            "draft_tokens": usage.draft_tokens,
            "accepted_tokens": usage.accepted_tokens,
            "first_token_s": usage.first_token_s,
            "total_s": max(answer.usage.total_s for answer in answers),
        },
    }
    if answers[0].prompt_logprobs is not None:
        figures["prompt_logprobs"] = [_token(one, decode) for one in answers[0].prompt_logprobs]
    return figures


def print_json(figures: dict[str, Any]) -> None:
    """On one line. What is minus infinity is null."""
    print(json.dumps(figures, ensure_ascii=False, allow_nan=False))


def _answer(answer: "Completion", decode: Decode) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "tokens": answer.tokens,
    }
    if answer.score is not None:
        figures["score"] = answer.score
    if answer.logprobs is not None:
        figures["logprobs"] = [_token(one, decode) for one in answer.logprobs]
    return figures


def _token(one: "TokenLogprobs | None", decode: Decode) -> dict[str, Any] | None:
    def figures(token: int, logprob: float) -> dict[str, Any]:
        finite = logprob if math.isfinite(logprob) else None
        return {"token": token, "text": decode([token]), "logprob": finite}

    if one is None:
        return None
    top = [figures(token, logprob) for token, logprob in one.top]
    return figures(one.token, one.logprob) | ({"top": top} if top else {})


def _logprob_table(tokens: "Iterable[TokenLogprobs | None]", decode: Decode) -> str:
    def text(token: int) -> str:
        return json.dumps(decode([token]), ensure_ascii=False)

    return table_text(
        [
            (f"{one.logprob:9.4f}", text(one.token), *(f"{text(token)} {p:.4f}" for token, p in one.top))
            for one in tokens
            if one is not None
        ]
    )
