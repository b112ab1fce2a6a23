"""`sardonyx doctor` on this machine, whatever it is."""

import json

import pytest

from command_line import Call
from sardonyx.runtime import hardware
from sardonyx.runtime.backends.providers import PROVIDERS
from sardonyx.runtime.cli import first_use


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "read_bandwidth", lambda threads: 2e9)


def test_every_provider_is_shown_and_the_cpu_is_right(call: Call) -> None:
    result = call("doctor")
    assert result.code == 0
    lines = [line.split() for line in result.out.splitlines()]
    assert {line[0] for line in lines if line} >= {*PROVIDERS, "processor", "features", "cores", "memory"}
    assert next(line for line in lines if line[:1] == ["cpu"])[-1] == "right"
    assert "2.0 GB read per second" in result.out


def test_json(call: Call) -> None:
    found = json.loads(call("doctor", "--json").out)
    assert found["providers"]["cpu"] == {
        "here": True,
        "version": found["versions"]["onnxruntime"],
        "wrong": [],
        "tokens_at_once": None,
        "rows_together": True,
    }
    assert found["providers"]["dml"] == {"here": False, "package": "onnxruntime-directml"}
    assert "model" not in found


def test_a_model_is_measured(
    call: Call, monkeypatch: pytest.MonkeyPatch, parrot: list[tuple[str, int | None]]
) -> None:
    monkeypatch.setattr(first_use, "ready_artifact", lambda name: name)
    measured = json.loads(call("doctor", "mine", "--json").out)["model"]
    assert parrot == [("mine", None)]
    assert measured["measured_tokens_per_s"] > 0
    assert measured["predicted_tokens_per_s"] is None  # the parrot weighs nothing
    assert "tokens/s" in call("doctor", "mine").out


def test_a_processor_without_dot_products_is_said_to_be_slow(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_features", lambda: ("AVX2",))
    assert "AVX2 (no dot product of bytes: int4 and int8 are slow here)" in call("doctor").out
