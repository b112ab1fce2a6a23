"""On which provider a command runs a model: the same options everywhere."""

from pathlib import Path
from typing import Any

import pytest

from command_line import Call
from random_models import export_random
from sardonyx.models import architectures
from sardonyx.runtime.backends import sessions
from sardonyx.runtime.backends.providers import PROVIDERS
from sardonyx.runtime.cli.places import place_of

COMMANDS = {
    "run": ["DIR", "onyx"],
    "chat": ["DIR"],
    "score": ["DIR", "onyx", "--candidate", "a"],
    "bench": ["DIR"],
    "verify": ["DIR"],
    "eval": ["DIR"],
    "compare": ["DIR"],
    "doctor": ["DIR"],
    "cache pack": ["FILE", "--model", "DIR", "--out", "OUT"],
}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    export_random(architectures()["llama"].EXAMPLE, tmp_path / "it")
    return tmp_path / "it"


def arguments(command: str, artifact: Path) -> list[str]:
    text = artifact.parent / "text.txt"
    text.write_text("onyx")
    names = {"DIR": str(artifact), "FILE": str(text), "OUT": str(artifact.parent / "out")}
    return [*command.split(), *(names.get(word, word) for word in COMMANDS[command])]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--provider", "vulkan"], "error: provider vulkan: not known; choose one of auto, cuda, webgpu, "),
        (
            ["--provider", "dml"],
            "error: provider dml: not here; pip install onnxruntime-directml (here are: ",
        ),
        (
            ["--provider-option", "x=1"],
            "error: provider option x: cpu does not take it; known: it takes none",
        ),
    ],
)
def test_every_command_takes_a_provider(
    command: str, options: list[str], says: str, artifact: Path, call: Call
) -> None:
    result = call(*arguments(command, artifact), *options)
    assert result.code == 2
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert line.startswith(says)


def test_auto_takes_the_best_that_is_here(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert place_of({"provider": "auto"}).provider.name == sessions.present()[0].name
    monkeypatch.setattr(sessions, "present", lambda: [PROVIDERS["webgpu"], PROVIDERS["cpu"]])
    assert place_of({"provider": "auto"}).provider is PROVIDERS["webgpu"]
    assert "provider: webgpu" in capsys.readouterr().err


def test_the_cpu_is_what_is_meant_without_a_word() -> None:
    place = place_of({})
    assert (place.provider.name, place.fallback, place.options) == ("cpu", False, {})


def test_settings_and_permission_reach_the_place() -> None:
    given = {
        "provider": "cuda",
        "provider_options": ("device_id=1", "use_tf32=false"),
        "allow_fallback": True,
    }
    place = place_of(given)
    assert place.provider is PROVIDERS["cuda"]
    assert place.options == {"device_id": "1", "use_tf32": "0"}
    assert place.fallback
