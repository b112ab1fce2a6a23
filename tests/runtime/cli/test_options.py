"""Every parameter and option of an algorithm is one of `run`, read as its type, or refused by name."""

from typing import Any

import msgspec
import pytest

from command_line import Call
from sardonyx.runtime.cli.algorithms import ALGORITHM_OPTIONS
from sardonyx.runtime.cli.options import Option
from sardonyx.runtime.cli.sampling import SHOWS_LOGPROBS, sampling_options
from sardonyx.runtime.decoding import ASKED_BY, fields
from sardonyx.runtime.params import SamplingParams

pytestmark = pytest.mark.usefixtures("parrot")

SAMPLING = {option.field: option for option in sampling_options()}


def test_every_sampling_parameter_is_an_option() -> None:
    assert SAMPLING.keys() == {*SamplingParams.__struct_fields__}
    left_out = {option.field for option in sampling_options(SHOWS_LOGPROBS)}
    assert SAMPLING.keys() - left_out == {*SHOWS_LOGPROBS}


def test_every_option_of_every_algorithm_is_an_option() -> None:
    offered = [option.field for option in ALGORITHM_OPTIONS]
    taken = {name for kind in ASKED_BY.values() for name in fields(kind)}
    assert sorted(offered) == sorted(taken)
    usual = {option.field for option in ALGORITHM_OPTIONS if option.shown}
    assert usual >= ASKED_BY.keys()


def test_no_two_options_have_the_same_flag() -> None:
    flags = [option.flag for option in (*SAMPLING.values(), *ALGORITHM_OPTIONS)]
    assert len({*flags}) == len(flags)
    assert {"--stop", "--stop-token-id", "--logit-bias", "--bad-word", "--typical-p", "--ensemble"} < {*flags}


@pytest.mark.parametrize(
    ("field", "typed", "value"),
    [
        ("typical_p", 0.5, 0.5),
        ("profile", "hf", "hf"),
        ("bad_words", ["l", "[5, 6]", "5"], ("l", (5, 6), "5")),
        ("dry_sequence_breakers", ["\n"], ("\n",)),
        ("logit_bias", ["7=-1", "8=1.5"], {7: -1.0, 8: 1.5}),
        ("exponential_decay_length_penalty", "5,1.5", (5, 1.5)),
        ("suppress_tokens", [3, 4], (3, 4)),
        ("stop", ["1", "[2]"], ("1", "[2]")),
        ("ignore_eos", True, True),
    ],
)
def test_what_is_typed_is_read_as_its_type(field: str, typed: Any, value: Any) -> None:
    given = {field: SAMPLING[field].read(typed)}
    if field in ("dry_sequence_breakers",):
        given["dry_multiplier"] = 1.0
    assert getattr(msgspec.structs.replace(SamplingParams(), **given), field) == value


@pytest.mark.parametrize(("typed", "value"), [("true", True), ("false", False), ("never", "never")])
def test_what_may_be_a_switch_or_a_word(typed: str, value: Any) -> None:
    (option,) = (option for option in ALGORITHM_OPTIONS if option.field == "early_stopping")
    assert option.read(typed) is value or option.read(typed) == value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--typical-p", "2"], "typical_p=2.0 is out of range"),
        (["--profile", "mine"], "profile='mine' is out of range: it must be one of openai, hf, "),
        (["--logit-bias", "5"], "logit_bias={5: ''} is not of type dict[int, float]"),
        (["--logit-bias", "a=5"], "logit_bias={'a': 5} is not of type dict[int, float]"),
        (["--exponential-decay-length-penalty", "5"], "exponential_decay_length_penalty=[5] is not of type"),
        (["--num-beams", "0"], "num_beams=0 is out of range: it must be at least 1"),
        (["--num-beams", "2", "--early-stopping", "late"], "early_stopping='late' is out of range"),
        (["--length-penalty", "2"], "length_penalty says more of num_beams or num_beam_groups"),
        (["--num-beams", "2", "--penalty-alpha", "0.5"], "num_beams and penalty_alpha ask for different"),
        (["--num-beams", "2", "--top-k", "5"], "top_k=5 is for drawing, and beam search"),
        (["--num-beams", "2", "--logprobs", "0"], "logprobs=0: beam search notes none"),
        (["--penalty-alpha", "0.5"], "contrastive search tries the top_k likeliest tokens: set top_k"),
        (["--xtc-threshold", "0.5"], "xtc_threshold=0.5 only says more of xtc_probability, which is off"),
    ],
)
def test_what_cannot_be_taken_is_named(call: Call, options: list[str], message: str) -> None:
    result = call("run", "m", "Hello", *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {message}")
    assert result.err.count("\n") == 1


def test_the_whole_help_shows_every_option_and_the_usual_one_the_usual(call: Call) -> None:
    for command, left_out in (("run", ()), ("chat", SHOWS_LOGPROBS)):
        usual, whole = call(command, "--help").out, call(command, "--help-all").out
        for option in (*sampling_options(left_out), *ALGORITHM_OPTIONS):
            assert f"  {option.flag}" in whole
            assert (f"  {option.flag} " in usual) == option.shown, option.flag
        assert "Sampling:\n" in usual
        assert "--help-all" in usual


def test_a_flag_is_the_field_in_the_singular() -> None:
    assert Option("stop_token_ids", tuple[int, ...], "x", "g").flag == "--stop-token-id"
    assert Option("logit_bias", dict[int, float], "x", "g").flag == "--logit-bias"
    assert Option("models", tuple[str, ...], "x", "g", name="ensemble").flag == "--ensemble"
