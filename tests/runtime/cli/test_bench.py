"""`sardonyx bench`: every length is measured, figures add up, and what does not fit is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from command_line import Call
from sardonyx.runtime.cli import first_use
from sardonyx.runtime.cli.compare import measured
from sardonyx.runtime.cli.measure import Work, measure, measure_all, peak_memory_bytes
from sardonyx.runtime.concurrency import Crowds
from sardonyx.runtime.errors import RequestError
from scripted_llm import scripted_llm


@pytest.fixture(autouse=True)
def _ready(monkeypatch: pytest.MonkeyPatch, parrot: list[tuple[str, int | None]]) -> None:
    monkeypatch.setattr(first_use, "ready_artifact", lambda name: name)


OPTIONS = ("--prompt-tokens", "8", "--prompt-tokens", "32", "--new-tokens", "5", "--repeats", "2")


def test_a_table_for_people(call: Call) -> None:
    result = call("bench", "mine", *OPTIONS)
    summary, _, heading, short, long = result.out.splitlines()
    assert summary.startswith("parrot (none): loaded in 0.")
    assert heading.split() == ["PROMPT", "FIRST", "TOKEN", "PREFILL", "DECODE", "OUTSIDE"]
    assert short.startswith("8 tokens ")
    assert long.startswith("32 tokens ")
    assert result.err == "measuring parrot\n"


def test_json_for_programs(call: Call) -> None:
    figures = json.loads(call("bench", *OPTIONS, "--json").out)
    assert figures["model"] == "parrot"
    assert figures["peak_memory_bytes"] > 1_000_000
    assert [speed["prompt_tokens"] for speed in figures["speeds"]] == [8, 32]
    for speed in figures["speeds"]:
        assert speed["new_tokens"] == 5
        assert speed["prefill_tokens_per_s"] > 0
        assert speed["decode_tokens_per_s"] > 0
        assert speed["outside_share"] == 1  # the scripted backend spends no time in onnxruntime


def test_several_models_take_turns(call: Call) -> None:
    result = call("bench", "mine", "yours", *OPTIONS)
    first, second, _, heading, *rows = result.out.splitlines()
    assert first.startswith("parrot (none): loaded in 0.")
    assert second.startswith("parrot (none): loaded in 0.")
    assert heading.split() == ["PROMPT", "MODEL", "FIRST", "TOKEN", "PREFILL", "DECODE", "OUTSIDE"]
    found = [(row.split()[0], row.split()[2]) for row in rows]
    assert found == [("8", "mine"), ("8", "yours"), ("32", "mine"), ("32", "yours")]
    assert rows[0].count("(1.00x)") == 2


def test_several_models_for_programs(call: Call) -> None:
    first, second = json.loads(call("bench", "mine", "yours", *OPTIONS, "--json").out)
    assert [speed["decode_ratio"] for speed in first["speeds"]] == [1, 1]
    for speed in second["speeds"]:
        assert speed["prefill_ratio"] > 0
        assert speed["decode_ratio"] > 0


def test_models_answer_the_same_prompts_in_turns() -> None:
    asked: list[tuple[str, tuple[int, ...]]] = []
    llms = []
    for name in "ab":
        llm = scripted_llm()
        answer = llm.generate
        llm.generate = lambda prompt, params=None, name=name, answer=answer: (  # type: ignore[method-assign,misc]
            asked.append((name, tuple(prompt))),
            answer(prompt, params),
        )[1]
        llms.append(llm)
    measure_all(llms, Work([8], 3, 3), lambda done, total: None)
    names = [name for name, _ in asked[2:]]
    prompts = [prompt for _, prompt in asked[2:]]
    assert names == ["a", "b", "b", "a", "a", "b"]
    assert prompts[0::2] == prompts[1::2]
    assert len(set(prompts)) == 3


CROWDS = ("bench", "--concurrency", "1,3", "--prompt-tokens", "8", "--new-tokens", "5", "--repeats", "2")


def test_several_at_once_for_people(call: Call) -> None:
    summary, _, heading, one, three, _, joining = call(*CROWDS).out.splitlines()
    assert summary.startswith("parrot (none): loaded in 0.")
    columns = [*["ANSWERS", "DECODE", "FIRST", "TOKEN", "GAP", "P50", "GAP", "P95", "OUTSIDE"]]
    assert heading.split() == columns
    assert (one.split()[0], three.split()[0]) == ("1", "3")
    assert joining.startswith("A prompt of 128 tokens joins 4 answers: first token after ")


def test_several_at_once_for_programs(call: Call) -> None:
    figures = json.loads(call(*CROWDS, "--json").out)
    assert [crowd["answers"] for crowd in figures["concurrency"]] == [1, 3]
    for crowd in figures["concurrency"]:
        assert crowd["decode_tokens_per_s"] > 0
        assert 0 < crowd["gap_p50_s"] <= crowd["gap_p95_s"]
        assert crowd["first_token_s"] > 0
        assert crowd["outside_share"] == 1
    joining = figures["joining"]
    assert (joining["answers"], joining["prompt_tokens"]) == (4, 128)
    assert 0 < joining["gap_p50_s"] <= joining["gap_longest_s"]


def test_a_crowd_decodes_together() -> None:
    """Its tokens are those of the model, and its prompts are all different."""
    llm = scripted_llm()
    crowd = Crowds(llm, 8, 5).crowd(6)
    assert crowd.answers == 6
    batches = llm._program.batches  # type: ignore[attr-defined]
    assert [batch.ids.shape for batch in batches] == [(6, 8), *[(6, 1)] * 4]
    assert len({tuple(row) for row in batches[0].ids}) == 6


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--concurrency", "1,x"], "--concurrency 1,x: numbers above 0 are needed, as in 1,2,4,8"),
        (["--concurrency", "0"], "--concurrency 0: numbers above 0"),
        (["--concurrency", ""], "--concurrency : numbers above 0"),
        (["a", "b", "--concurrency", "2"], "--concurrency takes one MODEL, not 2"),
        (["--concurrency", "2", *OPTIONS], "--concurrency takes one --prompt-tokens, not 2"),
        (["--concurrency", "2", "--prompt-tokens", "256"], "256 prompt tokens and 64 new ones are more than"),
    ],
)
def test_crowds_that_make_no_sense_are_refused(call: Call, options: list[str], fault: str) -> None:
    result = call("bench", *options)
    assert result.code == 2
    assert fault in result.err


def test_lengths_take_turns() -> None:
    llm = scripted_llm()
    lengths = []
    answer = llm.generate
    llm.generate = lambda prompt, params=None: (lengths.append(len(prompt)), answer(prompt, params))[1]  # type: ignore[method-assign]
    runs: list[tuple[int, int]] = []
    measure(llm, [8, 4], 3, 2, lambda done, total: runs.append((done, total)))
    assert lengths == [4, 8, 4, 8, 4]
    assert runs == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_what_does_not_fit_is_refused(call: Call) -> None:
    with pytest.raises(
        RequestError, match="252 prompt tokens and 5 new ones are more than the context of 256"
    ):
        measure(scripted_llm(), [252], 5, 1, lambda done, total: None)
    assert call("bench").code == 2  # 1024 tokens


def test_the_peak_is_unknown_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "resource", None)
    assert peak_memory_bytes() is None


def test_turns_of_a_comparison_share_no_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prefix cache would know it, and a prompt that is known takes no time."""
    llm = scripted_llm()
    monkeypatch.setattr(first_use, "load", lambda model, threads, place: llm)
    cached: list[int] = []
    generate = llm.generate

    def watched(*asked: Any) -> Any:
        answer = generate(*asked)
        cached.append(answer.usage.cached_tokens)
        return answer

    monkeypatch.setattr(llm, "generate", watched)
    measured([Path("mine")], prompt_tokens=100, new_tokens=3, repeats=3, place={})
    assert cached[1::2] == [0, 0, 0]  # behind a warm-up each
