"""A real artifact, each of its files damaged in turn: LLM.load refuses it and names the file."""

import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from random_models import UNMEASURED, ArrayCheckpoint, random_checkpoint
from sardonyx.export.api import export
from sardonyx.models import architectures
from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.huggingface.tokenizer_files import TokenizerFiles
from sardonyx.runtime.llm import LLM
from sardonyx.runtime.manifest import MANIFEST_NAME

NAMES = ("model.onnx", "model.onnx.data", "tokenizer.json", "chat_template.jinja", MANIFEST_NAME)


@dataclass(frozen=True)
class Chatty(ArrayCheckpoint):
    """A checkpoint that has a chat template."""

    def tokenizer(self) -> TokenizerFiles:
        plain = super().tokenizer()
        template = "{% for message in messages %}{{ message.content }}{% endfor %}"
        return TokenizerFiles(plain.tokenizer_json, template, None, plain.eos_ids, plain.special_texts)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = random_checkpoint(architectures()["llama"].EXAMPLE)
    folder = tmp_path_factory.mktemp("sound") / "artifact"
    export(Chatty(source.config, source.arrays), folder, recipe="fp32", options=UNMEASURED)
    assert {path.name for path in folder.iterdir()} == set(NAMES)
    return folder


@pytest.fixture
def artifact(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "artifact"))


CUTS: Mapping[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "all but the last byte": lambda data: data.rstrip(b"\n")[:-1],
}


def refusal(folder: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        LLM.load(folder)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_the_sound_one_loads(artifact: Path) -> None:
    assert LLM.load(artifact).chat_template is not None


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    assert str(artifact / name) in refusal(artifact)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_file(artifact: Path, name: str, cut: str) -> None:
    path = artifact / name
    path.write_bytes(CUTS[cut](path.read_bytes()))
    assert str(path) in refusal(artifact)


@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("seed", range(4))
def test_an_altered_file(artifact: Path, name: str, seed: int) -> None:
    """One bit of it, anywhere; the manifest alone is held by the certificate, where there is one."""
    path, chance = artifact / name, random.Random(seed)
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    message = refusal(artifact)
    assert str(path) in message
    assert "export the model again" in message


@pytest.mark.parametrize("name", NAMES[:-1])
def test_a_file_of_another_artifact(artifact: Path, name: str) -> None:
    (artifact / name).write_bytes((artifact / MANIFEST_NAME).read_bytes())
    assert str(artifact / name) in refusal(artifact)
