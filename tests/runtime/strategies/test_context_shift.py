"""Texts beyond the context, against the definition: each token follows from what remains, computed afresh."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from random_models import export_random
from sardonyx.models import architectures
from sardonyx.runtime import LLM, Memory, SamplingParams
from sardonyx.runtime.decoding import algorithm_of
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.logits import LogprobLog
from sardonyx.runtime.strategies import Feed
from sardonyx.runtime.strategies.context_shift import ContextShift, shifted, what_remains
from scripted_llm import scripted_llm
from toys import Logits, Player, ToyAnswer, drawn, request, toy

VOCAB = 9
SHIFT = ContextShift(context_shift=True)


def by_definition(model: Logits, prompt: list[int], count: int, context: int, sinks: int) -> tuple[Any, int]:
    """Greedy tokens, each by the model on the whole of what remains; and how many tokens went."""
    held, answer, forgotten = list(prompt), [], 0
    for _ in range(count):
        if len(held) > context:
            rest = held[:sinks] + held[len(held) - (context - sinks) // 2 :]
            forgotten += len(held) - len(rest)
            held = rest
        answer.append(int(model(held).argmax()))
        held.append(answer[-1])
    return answer, forgotten


def greedy(sequence: Sequence[int], logits: Any, position: int) -> int:
    assert len(sequence) == position
    return int(logits.argmax())


@given(
    seed=st.integers(0, 999),
    prompt=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=60),
    count=st.integers(1, 50),
    context=st.integers(6, 20),
    sinks=st.integers(0, 4),
)
def test_each_token_follows_from_what_remains(
    seed: int, prompt: list[int], count: int, context: int, sinks: int
) -> None:
    model, longest = toy(VOCAB, seed), 0

    def watched(text: Sequence[int]) -> Any:
        nonlocal longest
        longest = max(longest, len(text))
        return model(text)

    answer = ToyAnswer(prompt, count)
    Player([watched]).run(shifted(answer, greedy, context, sinks))
    assert (answer.tokens, answer.forgotten) == by_definition(model, prompt, count, context, sinks)
    assert longest <= context


def test_what_stays_is_not_computed_again() -> None:
    answer = ToyAnswer(list(range(8)), 30)
    strategy = shifted(answer, lambda *_: 1, 10, 4)
    logits = np.zeros((1, VOCAB), np.float32)
    feeds = [next(strategy), *(strategy.send([logits]) for _ in range(4))]
    assert [(len(feed.tokens[0]), feed.keep) for feed in feeds] == [
        (8, None), (1, [(0, 8)]), (1, [(0, 9)]), (3, [(0, 4)]), (1, [(0, 7)])
    ]  # fmt: skip


def test_what_fits_is_as_without_it() -> None:
    model, answer = toy(VOCAB), ToyAnswer([1, 2, 3], 6)
    warm = SamplingParams(temperature=1.0, max_tokens=6)
    Player([model]).run(SHIFT.start(request(answer, params=warm, seed=3)))
    assert answer.tokens == drawn(model, ToyAnswer([1, 2, 3], 6), warm, 3)
    assert answer.forgotten == 0


def test_the_rule() -> None:
    assert what_remains(list(range(21)), 20, 4) == [0, 1, 2, 3, *range(13, 21)]
    assert what_remains(list(range(99)), 7, 0) == [96, 97, 98]


@pytest.mark.parametrize(
    ("algorithm", "answer", "params", "fault"),
    [
        (ContextShift(context_shift=False), {}, {}, "leave it out"),
        (ContextShift(context_shift=True, attention_sinks=999), {}, {}, "leave no room in 1000 positions"),
        (SHIFT, {"prompt_logprobs": LogprobLog(0)}, {}, "prompt_logprobs are of the whole"),
        (SHIFT, {"ends": frozenset()}, {}, "nothing ends this answer"),
    ],
)
def test_what_it_cannot_do_is_refused(
    algorithm: ContextShift, answer: dict[str, Any], params: dict[str, Any], fault: str
) -> None:
    asked = request(ToyAnswer([1], 3, **{"ends": frozenset({0}), **answer}), params=SamplingParams(**params))
    with pytest.raises(RequestError, match=fault):
        algorithm.start(asked)


def test_it_gives_one_answer() -> None:
    with pytest.raises(RequestError, match="context shift gives one answer"):
        SHIFT.start(request(ToyAnswer([1]), ToyAnswer([1])))


def test_it_is_asked_for_by_name() -> None:
    assert algorithm_of({"context_shift": True, "attention_sinks": 9}) == ContextShift(
        context_shift=True, attention_sinks=9
    )
    with pytest.raises(RequestError, match="attention_sinks says more of context_shift"):
        algorithm_of({"attention_sinks": 9})


def test_a_chat_goes_on_beyond_the_context() -> None:
    """Where it is refused otherwise; and what went is told."""
    llm = scripted_llm(context=64)
    said = [{"role": "user", "content": "x" * 50 + "abcdefghijklmnopqrstuvwxyz"}]
    with pytest.raises(RequestError, match="the model holds 64"):
        llm.chat(said)
    answer = llm.chat(said, SamplingParams(max_tokens=100), SHIFT)
    assert (answer.usage.prompt_tokens, answer.usage.forgotten_tokens > 0) == (78, True)
    assert len(answer.tokens) > 0
    assert len(llm._model.arena) == 0


@pytest.mark.parametrize("name", ["llama", "gpt2", "lfm2"])
def test_real_kernels_do_as_the_definition_says(name: str, tmp_path: Path) -> None:
    """Rotary positions, learned ones, and states that remember their last positions only."""
    export_random(architectures()[name].EXAMPLE, tmp_path / "model")
    llm = LLM.load(tmp_path / "model", threads=1, memory=Memory())
    context = llm.manifest.context_length
    prompt = [int(token) for token in np.random.default_rng(0).integers(1, 99, context - 9)]
    found = llm.generate(prompt, SamplingParams(max_tokens=60, ignore_eos=True), SHIFT)

    def model(text: Sequence[int]) -> Any:
        ((logits,),) = llm.logits(Feed([text]))
        return logits[-1]

    tokens, forgotten = by_definition(model, prompt, 60, context, 4)
    assert (list(found.tokens), found.usage.forgotten_tokens) == (tokens, forgotten)
    assert forgotten > 0
