"""Prefixes in files: what comes back is what was written, or one line says why nothing does."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file

from random_models import export_random
from sardonyx.models.lfm2 import EXAMPLE as LFM2
from sardonyx.models.llama import EXAMPLE
from sardonyx.runtime import LLM, Memory, Reuse, SamplingParams
from sardonyx.runtime.errors import ArtifactError, OutputError, RequestError
from sardonyx.runtime.manifest import State
from sardonyx.runtime.saved_prefix import SavedPrefix, read, write
from sardonyx.runtime.strategies.prefix import pinned
from scripted_llm import FILES, scripted_llm, scripted_llm_manifest

STATES = [
    State("past.0", "present.0", "kv", [2, 3], "int8"),
    State("past.1", "present.1", "kv", [1, 2], "float16"),
    State("past.2", "present.2", "kv", [3, 1], "float32"),
]
MANIFEST = msgspec.structs.replace(scripted_llm_manifest(), states=STATES, files=FILES)
SYSTEM = "You answer in the words of the one who asks, and in no others."


def prefix(count: int = 5) -> SavedPrefix:
    rng = np.random.default_rng(0)
    shapes = [(s.shape[0], count, s.shape[1]) for s in STATES]
    states = [rng.integers(-99, 99, shape).astype(s.dtype) for s, shape in zip(STATES, shapes, strict=True)]
    return SavedPrefix("hello", list(range(7, 7 + count)), states)


def test_what_is_written_comes_back_and_stays_in_the_file(tmp_path: Path) -> None:
    file, wrote = tmp_path / "a.kv", prefix()
    write(file, MANIFEST, wrote)
    found = read(file, MANIFEST)
    assert (found.prompt, found.tokens) == (wrote.prompt, wrote.tokens)
    for state, expected in zip(found.states, wrote.states, strict=True):
        assert state.dtype == expected.dtype
        assert np.array_equal(state, expected)
        assert isinstance(state, np.memmap)
        assert state.flags.aligned
        assert not state.flags.writeable
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.kv"]


def test_others_can_read_the_format(tmp_path: Path) -> None:
    write(tmp_path / "a.kv", MANIFEST, prefix())
    tensors = load_file(tmp_path / "a.kv")
    assert tensors["tokens"].tolist() == [7, 8, 9, 10, 11]
    for state, expected in zip(STATES, prefix().states, strict=True):
        assert np.array_equal(tensors[state.input], expected)


def change_states(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


def change_tokens(data: bytes) -> bytes:
    start = 8 + struct.unpack("<Q", data[:8])[0]
    return data[:start] + b"\x09" + data[start + 1 :]


def change_prompt(data: bytes) -> bytes:
    return data.replace(b"hello", b"jello")


def change_shape(data: bytes) -> bytes:
    return data.replace(b"[2,5,3]", b"[5,2,3]")


def another_version(data: bytes) -> bytes:
    return data.replace(b"prefix 1", b"prefix 9")


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (change_states, "altered since it was written"),
        (change_tokens, "altered since it was written"),
        (change_prompt, "altered since it was written"),
        (change_shape, "altered since it was written"),
        (another_version, "not a prefix that this version saved"),
        (lambda data: data[:-1], "bytes of states"),
        (lambda data: data + b"x", "bytes of states"),
        (lambda data: data[:100], "not a saved prefix"),
        (lambda data: data[:3], "not a saved prefix"),
        (lambda data: b"", "not a saved prefix"),
        (lambda data: b"You are helpful.\n" * 99, "not a saved prefix"),
        (lambda data: b"\x02" + bytes(7) + b"[]", "not a saved prefix"),
        (lambda data: b"\x02" + bytes(7) + b"{}", "not a prefix that this version saved"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], fault: str) -> None:
    file = tmp_path / "a.kv"
    write(file, MANIFEST, prefix())
    data = file.read_bytes()
    assert damage(data) != data
    file.write_bytes(damage(data))
    with pytest.raises(ArtifactError, match=fault) as raised:
        read(file, MANIFEST)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("at", range(0, 900, 7))
def test_no_changed_byte_goes_unnoticed(tmp_path: Path, at: int) -> None:
    file = tmp_path / "a.kv"
    write(file, MANIFEST, prefix())
    data = bytearray(file.read_bytes())
    data[at % len(data)] ^= 1 << at % 8
    file.write_bytes(data)
    with pytest.raises(ArtifactError):
        read(file, MANIFEST)


@pytest.mark.parametrize(
    "other",
    [
        {"name": "another"},
        {"states": STATES[:2]},
        {"context_length": 99},
        {"source": msgspec.structs.replace(MANIFEST.source, sha256="00")},
        {"files": json.loads('{"model.onnx": {"bytes": 1, "sha256": "00"}}')},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_file_of_another_artifact_is_refused(tmp_path: Path, other: dict[str, object]) -> None:
    write(tmp_path / "a.kv", MANIFEST, prefix())
    with pytest.raises(ArtifactError, match=r"saved with parrot \(none\), and of no use to"):
        read(tmp_path / "a.kv", msgspec.structs.replace(MANIFEST, **other))


def test_a_graph_without_hashes_has_no_files(tmp_path: Path) -> None:
    """A folder that another program wrote: nothing would tell it from the next of its name."""
    foreign = msgspec.structs.replace(MANIFEST, files={})
    with pytest.raises(RequestError, match="parrot has no hashes"):
        write(tmp_path / "a.kv", foreign, prefix())
    write(tmp_path / "a.kv", MANIFEST, prefix())
    with pytest.raises(RequestError, match="parrot has no hashes"):
        read(tmp_path / "a.kv", foreign)


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        read(tmp_path / "none.kv", MANIFEST)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read(tmp_path, MANIFEST)
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "nowhere" / "a.kv", tmp_path / "folder"):
        with pytest.raises(OutputError, match="cannot be written"):
            write(place, MANIFEST, prefix())
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.kv"
    write(file, MANIFEST, prefix())
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="No space left"):
        write(file, MANIFEST, prefix(9))
    assert read(file, MANIFEST).tokens == prefix().tokens
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.kv"]


def test_a_chat_begins_where_a_file_ends(tmp_path: Path) -> None:
    said = [{"role": "system", "content": SYSTEM}]
    count = scripted_llm().save_prefix(said, tmp_path / "system.kv")
    assert count == 64  # <system>, 62 letters, <user>: whole blocks
    llm = scripted_llm(memory=Memory())
    assert llm.load_prefix(tmp_path / "system.kv") == said
    answer = llm.chat([*said, {"role": "user", "content": "hello"}])
    assert (answer.text, answer.usage.cached_tokens) == ("hello", 64)
    assert llm.chat([{"role": "user", "content": "hello"}]).usage.cached_tokens == 0
    assert len(llm._model.arena) == 0


def test_what_a_file_holds_becomes_known_in_a_step(tmp_path: Path) -> None:
    """Whoever asks for it: another thread may be in the middle of a step, which looks at what is known."""
    scripted_llm().save_prefix(SYSTEM, tmp_path / "system.kv")
    llm = scripted_llm(memory=Memory())
    saved = read(tmp_path / "system.kv", llm.manifest)
    task = llm._engine.submit(pinned(llm._model.prefixes, saved))
    assert not task.done
    with pytest.raises(RequestError):
        llm._model.prefixes.states(saved.tokens)
    assert llm._engine.step() is False
    assert (task.done, task.result) == (True, SYSTEM)
    assert len(llm._model.prefixes.states(saved.tokens)) == 1


def test_an_answer_is_the_same_with_a_file(tmp_path: Path) -> None:
    """On the real kernels, to the bit: greedy tokens of a random model are as good as coin tosses."""
    export_random({**EXAMPLE, "max_position_embeddings": 200}, tmp_path / "model")
    text = [int(token) for token in np.random.default_rng(1).integers(1, 99, 100)]
    llm = LLM.load(tmp_path / "model", threads=1)
    assert llm.save_prefix(text, tmp_path / "text.kv") == 96
    params = SamplingParams(max_tokens=30, logprobs=3)
    cold = LLM.load(tmp_path / "model", threads=1, memory=Memory())
    warm = LLM.load(tmp_path / "model", threads=1, memory=Memory())
    assert warm.load_prefix(tmp_path / "text.kv") == text
    for prompt in ([*text, 5, 6, 7], text, text[:50]):
        one, other = cold.generate(prompt, params), warm.generate(prompt, params)
        assert (one.tokens, one.logprobs) == (other.tokens, other.logprobs)
        assert other.usage.cached_tokens == min(96, (len(prompt) - 2) // 32 * 32)


def test_what_is_not_worth_a_file_or_not_held_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="3 tokens are too few to be kept: 32 are one block"):
        scripted_llm().save_prefix("abc", tmp_path / "a.kv")
    with pytest.raises(RequestError, match="the model holds 256"):
        scripted_llm().save_prefix("a" * 300, tmp_path / "a.kv")
    with pytest.raises(RequestError, match=r"raise Reuse\.bytes"):
        scripted_llm(memory=Memory(reuse=Reuse(32 * 4))).save_prefix("a" * 70, tmp_path / "a.kv")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_remembers_the_last_positions_only_has_no_prefix_to_save(tmp_path: Path) -> None:
    export_random(LFM2, tmp_path / "model")
    llm = LLM.load(tmp_path / "model", threads=1)
    with pytest.raises(RequestError, match="remembers the last positions only"):
        llm.save_prefix([1] * 50, tmp_path / "a.kv")
    assert llm.generate([1] * 50, SamplingParams(max_tokens=2)).usage.cached_tokens == 0
