"""`sardonyx doctor` on this machine, whatever it is."""

import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from command_line import Call
from random_models import export_random
from sardonyx.models import architectures
from sardonyx.runtime import hardware
from sardonyx.runtime.backends import sessions
from sardonyx.runtime.backends.providers import PROVIDERS, Place
from sardonyx.runtime.cli import first_use
from sardonyx.runtime.manifest import WEIGHTS_NAME


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
    dml = found["providers"]["dml"]
    assert (dml["here"], dml["package"]) == (False, "onnxruntime-directml")
    assert dml["why"].startswith("not here; pip install onnxruntime-directml")
    assert found["versions"]["onnxruntime"] == onnxruntime.__version__
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


def test_what_memory_allows_stands_beside_what_was_measured(call: Call, tmp_path: Path) -> None:
    """Every weight is read once a token: 2 GB a second are so many times the weights."""
    export_random(architectures()["llama"].EXAMPLE, tmp_path / "it")
    weights = (tmp_path / "it" / WEIGHTS_NAME).stat().st_size
    found = json.loads(call("doctor", str(tmp_path / "it"), "--json").out)
    assert found["model"]["weight_bytes"] == weights
    assert found["model"]["predicted_tokens_per_s"] == pytest.approx(2e9 / weights)
    assert found["model"]["measured_tokens_per_s"] > 0
    assert found["machine"]["read_bytes_per_s"] == 2e9
    lines = call("doctor", str(tmp_path / "it")).out
    assert f"predicted  {2e9 / weights:.0f} tokens/s at most" in lines
    assert "measured" in lines


def test_a_plugin_without_a_device_and_a_provider_without_attention_say_so(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the plugin of OpenVINO on a processor of another maker, and OpenVINO built in."""
    answer = sessions.run_once

    def run_once(model: bytes, feeds: dict[str, Any], place: Place) -> Any:
        if place.provider is PROVIDERS["openvino"]:
            raise RuntimeError("no kernel")
        return answer(model, feeds, place)

    monkeypatch.setattr(sessions, "present", lambda: [PROVIDERS["openvino"], PROVIDERS["cpu"]])
    monkeypatch.setattr(sessions, "run_once", run_once)
    assert "of plain operators alone: models exported with --target portable" in call("doctor").out
    monkeypatch.setattr(sessions, "present", lambda: [PROVIDERS["cpu"]])
    monkeypatch.setattr(sessions.importlib.util, "find_spec", lambda name: name)
    assert "finds no device that it takes; it needs hardware of Intel's" in call("doctor").out


def test_a_processor_without_dot_products_is_said_to_be_slow(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_features", lambda: ("AVX2",))
    assert "AVX2 (no dot product of bytes: int4 and int8 are slow here)" in call("doctor").out
