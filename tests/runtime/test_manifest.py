"""The contract: strict in what it reads, stable in what it writes."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sardonyx.runtime.backends.scripted import scripted_manifest
from sardonyx.runtime.errors import ArtifactError
from sardonyx.runtime.manifest import (
    FORMAT,
    MANIFEST_NAME,
    FileRecord,
    Manifest,
    State,
    read_manifest,
    write_manifest,
)

STATE = {"input": "a", "output": "b", "kind": "kv", "shape": [2, 3], "dtype": "float32"}
REQUIRED = [field.name for field in msgspec.structs.fields(Manifest) if field.required]
RECORD = FileRecord(5, "00")
MANIFEST = msgspec.structs.replace(
    scripted_manifest(10),
    files={"model.onnx": RECORD, "a b.json": RECORD},
    generation={"top_k": 5, "eos_token_id": [1, 2]},
    weights={"lm_head.weight": "none", "a": "nbits"},
)


def refusal(folder: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        read_manifest(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def with_document(folder: Path, document: Any) -> Path:
    (folder / MANIFEST_NAME).write_text(json.dumps(document))
    return folder


def document(**changes: Any) -> dict[str, Any]:
    return {**msgspec.to_builtins(MANIFEST), **changes}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST


def test_equal_manifests_are_equal_bytes(tmp_path: Path) -> None:
    """Whatever the order in which dictionaries were filled."""

    def backwards(value: Any) -> Any:
        return {key: backwards(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    write_manifest(tmp_path, MANIFEST)
    written = (tmp_path / MANIFEST_NAME).read_bytes()
    write_manifest(tmp_path, msgspec.convert(backwards(msgspec.to_builtins(MANIFEST)), Manifest))
    assert (tmp_path / MANIFEST_NAME).read_bytes() == written
    assert written.endswith(b"}\n")
    assert json.loads(written) == document()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"format": FORMAT + 1}, f"format {FORMAT + 1}, this runtime reads format {FORMAT}"),
        ({"format": None}, "format None, this runtime"),
        ({"format": True}, "Expected `int`, got `bool` - at `$.format`"),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"vocab_size": "many"}, "Expected `int`, got `str` - at `$.vocab_size`"),
        ({"vocab_size": 0}, "`$.vocab_size`"),
        ({"context_length": -1}, "`$.context_length`"),
        ({"states": []}, "`$.states`"),
        ({"states": [STATE | {"shape": [2]}]}, "`$.states[0].shape`"),
        ({"states": [STATE | {"shape": [2, 0]}]}, "`$.states[0].shape[1]`"),
        ({"states": [STATE | {"dtype": "bfloat16"}]}, "`$.states[0].dtype`"),
        ({"states": [STATE | {"kind": "new"}]}, "`$.states[0].kind`"),
        ({"tokens": {"eos": 2}}, "`$.tokens.eos`"),
        ({"files": {"model.onnx": {"bytes": 5}}}, "missing required field `sha256`"),
        ({"generation": []}, "`$.generation`"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    message = refusal(with_document(tmp_path, document(**changes)))
    assert message.startswith(f"{tmp_path / MANIFEST_NAME}: ")
    assert message.endswith("; export the model again")
    assert fault in message


@pytest.mark.parametrize(
    "field", [field.name for field in msgspec.structs.fields(Manifest) if field.required]
)
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    changed = document()
    del changed[field]
    assert ("format None" if field == "format" else f"`{field}`") in refusal(with_document(tmp_path, changed))


@pytest.mark.parametrize(
    "name",
    ["../model.onnx", "/etc/passwd", "a/b", "a\\b", "C:b", "..", ".", "", "a\n", "a\x00"],
)
def test_files_are_names_and_never_paths(tmp_path: Path, name: str) -> None:
    files = {name: {"bytes": 1, "sha256": "0"}}
    assert "$.files" in refusal(with_document(tmp_path, document(files=files)))


def test_states_that_cannot_be_held_are_refused(tmp_path: Path) -> None:
    states = [State("past_key_values.0.conv", "present.0.conv", "recurrent", [2, 3], "float32")]
    write_manifest(tmp_path, msgspec.structs.replace(MANIFEST, states=states))
    assert "past_key_values.0.conv is a state of kind recurrent" in refusal(tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"nonsense", b"{", b'{"format": 1}', b"\xff\xfe", b"[" * 100_000]
)
def test_what_is_no_manifest_is_damaged(tmp_path: Path, data: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(data)
    assert "sardonyx.json: damaged (" in refusal(tmp_path)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    path = tmp_path / MANIFEST_NAME
    data = path.read_bytes()
    for size in range(0, len(data) - 2, 5):  # the last two are the brace and a newline
        path.write_bytes(data[:size])
        refusal(tmp_path)


@given(data=st.data())
def test_a_changed_byte_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    write_manifest(folder, MANIFEST)
    path = folder / MANIFEST_NAME
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        read_manifest(folder)
    except ArtifactError as refused:
        assert str(path) in str(refused)  # noqa: PT017


def test_what_is_no_folder_or_has_no_manifest(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == (
        f"{tmp_path / 'nowhere'}: no such folder; `sardonyx list` shows the artifacts that are here"
    )
    assert "is not a sardonyx artifact; make one" in refusal(tmp_path)
    (tmp_path / MANIFEST_NAME).mkdir()
    assert "sardonyx.json: cannot be read (Is a directory)" in refusal(tmp_path)
    assert "no such folder" in refusal(tmp_path / MANIFEST_NAME / "x")


def test_cache_bytes_per_token() -> None:
    states = [State("a", "b", "kv", [2, 8], "float32"), State("c", "d", "kv", [2, 8], "int8")]
    assert msgspec.structs.replace(MANIFEST, states=states).cache_bytes_per_token() == 16 * 4 + 16
