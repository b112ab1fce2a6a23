"""`sardonyx run` with every algorithm, several answers, votes, log probabilities and JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from command_line import Call, Result
from random_models import random_checkpoint
from sardonyx.export.api import Options, export
from sardonyx.models.llama import EXAMPLE
from sardonyx.runtime import LLM, SamplingParams
from sardonyx.runtime.decoding import algorithm_of

PROMPT = "to be or not to be, that is"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    shelf = tmp_path_factory.mktemp("pair")
    for seed in (0, 1):
        options = Options(verify=False, hidden_states=True)
        export(random_checkpoint(EXAMPLE, seed), shelf / str(seed), recipe="fp32", options=options)
    return str(shelf / "0"), str(shelf / "1")


def run(call: Call, models: tuple[str, str], *options: str) -> Result:
    result = call("run", models[0], PROMPT, "--raw", "--max-tokens", "8", "--seed", "3", *options)
    assert result.code == 0, result.err
    return result


ALGORITHMS: list[tuple[list[str], dict[str, Any], dict[str, Any]]] = [
    ([], {}, {}),
    (["--num-beams", "3", "--length-penalty", "-1"], {}, {"num_beams": 3, "length_penalty": -1.0}),
    (["--num-beams", "3", "--temperature", "0.9"], {"temperature": 0.9}, {"num_beams": 3}),
    (["--num-beams", "4", "--num-beam-groups", "2"], {}, {"num_beams": 4, "num_beam_groups": 2}),
    (["--penalty-alpha", "0.6", "--top-k", "4"], {"top_k": 4}, {"penalty_alpha": 0.6}),
    (
        ["--guidance-scale", "3", "--negative-prompt", "no"],
        {},
        {"guidance_scale": 3.0, "negative_prompt": "no"},
    ),
    (["--amateur", "1", "--plausibility", "0.3"], {}, {"amateur": "1", "plausibility": 0.3}),
    (["--ensemble", "1", "--mean", "geometric"], {}, {"models": ("1",), "mean": "geometric"}),
    (
        ["--ensemble", "1", "--ensemble", "0", "--weight", "1", "--weight", "2", "--weight", "1"],
        {"temperature": 0.7},
        {"models": ("1", "0"), "weights": (1.0, 2.0, 1.0)},
    ),
    (["--prompt-lookup-num-tokens", "5", "--exact"], {}, {"prompt_lookup_num_tokens": 5}),
]


@pytest.mark.parametrize(("options", "params", "algorithm"), ALGORITHMS)
def test_every_algorithm_gives_what_it_gives_from_python(
    call: Call,
    models: tuple[str, str],
    options: list[str],
    params: dict[str, Any],
    algorithm: dict[str, Any],
) -> None:
    shelf = Path(models[0]).parent
    typed = [
        str(shelf / word) if word in ("0", "1") and options[i - 1] in NAMES else word
        for i, word in enumerate(options)
    ]
    typed += ["--temperature", "0.7"] if params == {"temperature": 0.7} else []
    loaded = {name: LLM.load(shelf / name, threads=1) for name in ("0", "1")}
    if "amateur" in algorithm:
        algorithm = algorithm | {"amateur": loaded["1"]}
    if "models" in algorithm:
        algorithm = algorithm | {"models": tuple(loaded[name] for name in algorithm["models"])}
    asked = SamplingParams(max_tokens=8, seed=3, **params)
    expected = loaded["0"].generate(PROMPT, asked, algorithm_of(algorithm))
    assert run(call, models, *typed).out.rstrip("\n") == expected.text.rstrip("\n")


NAMES = {"--amateur", "--ensemble"}


def test_models_of_an_algorithm_are_found_as_the_main_one_is(call: Call, models: tuple[str, str]) -> None:
    result = call("run", models[0], PROMPT, "--raw", "--amateur", "nowhere")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: nowhere: no model of this name")


def test_nothing_is_loaded_for_options_that_do_not_go_together(call: Call, parrot: list[Any]) -> None:
    for options, message in {
        ("--num-beams", "2", "--guidance-scale", "2"): "num_beams and guidance_scale ask for different",
        ("-n", "2", "--best-of", "3"): "-n and --best-of exclude each other; choose one of them",
        ("--best-of", "2", "--num-beams", "2"): "--best-of draws its answers one token at a time; leave out",
        ("--extract", "x"): "--extract says what --self-consistency votes on, which is not given",
        ("--self-consistency", "2", "--extract", "("): "'(' is no regular expression: missing ), ",
    }.items():
        result = call("run", "m", "Hello", *options)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"error: {message}")
        assert result.err.count("\n") == 1
    assert parrot == []


def test_several_answers_are_those_of_python(call: Call, models: tuple[str, str]) -> None:
    result = run(call, models, "-n", "3", "--temperature", "1")
    llm = LLM.load(models[0], threads=1)
    expected = llm.generate_n(PROMPT, 3, SamplingParams(max_tokens=8, seed=3, temperature=1.0))
    assert result.out == "".join(one.text.rstrip("\n") + "\n" for one in expected)
    assert "--- 3 of 3\n" in result.err
    assert " 24 generated in 3 answers, " in result.err
    assert result.err.endswith("; 3 cut off after --max-tokens 8\n")


def test_the_n_best_of_a_search_come_with_their_scores(call: Call, models: tuple[str, str]) -> None:
    result = run(call, models, "-n", "2", "--num-beams", "3")
    llm = LLM.load(models[0], threads=1)
    beams = algorithm_of({"num_beams": 3})
    expected = llm.generate_n(PROMPT, 2, SamplingParams(max_tokens=8, seed=3), beams)
    assert [f"score {one.score:.4f}" in result.err for one in expected] == [True, True]


def test_answers_that_must_be_the_same_are_refused(call: Call, parrot: list[Any]) -> None:
    for options in (["-n", "2"], ["--best-of", "2"], ["--self-consistency", "2"]):
        result = call("run", "m", "Hello", *options)
        assert result.err == "error: at temperature 0 all 2 answers are the same; give a --temperature\n"


def test_the_best_is_shown_alone(call: Call, models: tuple[str, str]) -> None:
    llm = LLM.load(models[0], threads=1)
    best, *_ = llm.best_of(PROMPT, 4, SamplingParams(max_tokens=8, seed=3, temperature=1.0))
    result = run(call, models, "--best-of", "4", "--temperature", "1")
    assert result.out.rstrip("\n") == best.text.rstrip("\n")
    assert " 32 generated in 4 answers" in result.err
    assert "log probabilities" not in result.err
    told = json.loads(run(call, models, "--best-of", "4", "--temperature", "1", "--json").out)
    scores = [answer["score"] for answer in told["answers"]]
    assert scores == sorted(scores, reverse=True)
    assert "logprobs" not in told["answers"][0]


def test_a_vote_is_on_numbers_or_on_what_an_expression_finds(call: Call, parrot: list[Any]) -> None:
    result = call("run", "m", "so 1,000 or -2.50", "--self-consistency", "3", "--temperature", "0.01")
    assert (result.code, result.out) == (0, "-2.50\n")
    assert result.err.startswith("   3 votes  -2.50\n")
    options = ["--self-consistency", "1", "--extract", r"is (\w+)"]
    assert call("run", "m", "it is A, no, it is B!", *options).out == "B\n"
    assert call("run", "m", "it is A", "--self-consistency", "1", "--extract", "[A-Z]").out == "A\n"


def test_a_vote_on_nothing_is_said(call: Call, parrot: list[Any]) -> None:
    result = call("run", "m", "none", "--self-consistency", "1")
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith("error: none of 1 answers has anything in it to vote on\n")


def test_log_probabilities_are_a_table_beside_the_answer(call: Call, models: tuple[str, str]) -> None:
    result = run(call, models, "--logprobs", "2", "--prompt-logprobs", "0")
    llm = LLM.load(models[0], threads=1)
    asked = SamplingParams(max_tokens=8, logprobs=2, prompt_logprobs=0)
    expected = llm.generate(PROMPT, asked)
    lines = result.err.splitlines()
    assert lines[0] == "log probabilities of the prompt:"
    start = lines.index("log probabilities of the answer:") + 1
    assert expected.logprobs is not None
    assert [float(line.split()[0]) for line in lines[start : start + 8]] == [
        pytest.approx(one.logprob, abs=1e-4) for one in expected.logprobs
    ]


def test_json_holds_all_there_is_and_nothing_else_is_printed(call: Call, models: tuple[str, str]) -> None:
    options = ["--logprobs", "1", "--prompt-logprobs", "0", "-n", "2", "--temperature", "1", "--json"]
    result = run(call, models, *options)
    assert result.err == ""
    told = json.loads(result.out)
    llm = LLM.load(models[0], threads=1)
    asked = SamplingParams(max_tokens=8, seed=3, temperature=1.0, logprobs=1, prompt_logprobs=0)
    expected = llm.generate_n(PROMPT, 2, asked)
    assert [answer["text"] for answer in told["answers"]] == [one.text for one in expected]
    assert told["answers"][1]["tokens"] == list(expected[1].tokens)
    assert told["answers"][1]["finish_reason"] == "length"
    assert told["answers"][0]["logprobs"][0]["logprob"] == expected[0].logprobs[0].logprob  # type: ignore[index]
    assert len(told["answers"][0]["logprobs"][0]["top"]) == 1
    assert told["prompt_logprobs"][0] is None
    assert told["usage"]["completion_tokens"] == 16
    assert (told["model"], told["recipe"]) == ("random", "fp32")


def test_guesses_are_counted(call: Call, parrot: list[Any]) -> None:
    options = ["--prompt-lookup-num-tokens", "4", "--raw", "--max-tokens", "30"]
    result = call("run", "m", "a...", *options)
    assert result.out == "." * 30 + "\n"
    counts = json.loads(call("run", "m", "a...", *options, "--json").out)["usage"]
    assert 20 <= counts["accepted_tokens"] == counts["draft_tokens"]
    assert f", {counts['accepted_tokens']} of {counts['draft_tokens']} guesses right" in result.err


def test_a_conversation_takes_an_algorithm(call: Call, parrot: list[Any]) -> None:
    asked = ["--num-beams", "2", "--exact"]
    assert call("chat", *asked, stdin="Hello\nfine weather").out == "Hello\nfine weather\n"
    assert call("chat", "--prompt-lookup-num-tokens", "4", stdin="aaa aaa\n").out == "aaa aaa\n"
    assert call("chat", "--length-penalty", "2").err.startswith(
        "error: length_penalty says more of num_beams"
    )
