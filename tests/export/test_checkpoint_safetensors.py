"""Safetensors against the library that defines the format, and headers that lie."""

import contextlib
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from checkpoint_files import random
from sardonyx.export.checkpoint.safetensors import stored_tensors
from sardonyx.runtime.errors import SourceError

FUZZ = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", np.float32), ("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)]
)
@given(data=st.data())
@FUZZ
def test_any_rows_of_each_type(name: str, dtype: Any, data: st.DataObject, tmp_path: Path) -> None:
    path, values = tmp_path / "x.safetensors", random(11, 3, 5).astype(dtype)
    if not path.exists():
        save_file({"other": random(7), "some": values}, path)
    start = data.draw(st.integers(0, 11))
    stop = data.draw(st.integers(start, 11))
    tensor = stored_tensors(path)["some"]
    assert (tensor.dtype, tensor.shape) == (name, (11, 3, 5))
    np.testing.assert_array_equal(tensor.rows(start, stop), values[start:stop].astype(np.float32))


def test_special_numbers_survive(tmp_path: Path) -> None:
    values = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3.4e38], np.float32)
    for dtype in (np.float32, ml_dtypes.bfloat16):
        save_file({"some": values.astype(dtype)}, tmp_path / "x.safetensors")
        rows = stored_tensors(tmp_path / "x.safetensors")["some"].rows(0, 7)
        np.testing.assert_array_equal(rows, values.astype(dtype).astype(np.float32))


def test_empty_tensors(tmp_path: Path) -> None:
    save_file({"none": np.zeros((0, 4), np.float32), "thin": np.zeros((4, 0), np.float32)}, tmp_path / "x")
    tensors = stored_tensors(tmp_path / "x")
    assert tensors["none"].rows(0, 0).shape == (0, 4)
    assert tensors["thin"].rows(1, 3).shape == (2, 0)


def write(path: Path, header: Any, data: bytes = bytes(64), length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(begin: int = 0, end: int = 64, shape: Any = (4, 4), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_header_by_hand_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"__metadata__": {"format": "pt"}, "some": entry()})
    assert stored_tensors(path).keys() == {"some"}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"some": entry(0, 128, (8, 4))}, r"cut short: tensor some ends at byte \d+, the file has \d+"),
        ({"some": entry(0, 1 << 62, (1 << 60,))}, "cut short: tensor some"),
        ({"some": entry(shape=(5, 4))}, "tensor some of shape 5x4 and type F32 cannot take 64 bytes"),
        ({"some": entry(shape=(1 << 40, 1 << 40))}, "cannot take 64 bytes"),
        ({"a": entry(0, 32, (8,)), "b": entry(16, 64, (12,))}, "tensor b overlaps another or leaves a gap"),
        ({"a": entry(0, 16, (4,)), "b": entry(32, 64, (8,))}, "tensor b overlaps another or leaves a gap"),
        ({"a": entry(64, 0, (4,)), "b": entry(0, 64, (8,))}, "tensor a overlaps another or leaves a gap"),
        ({"some": entry(0, 32, (8,))}, "32 bytes at its end belong to no tensor"),
        (
            {"some": entry(dtype="I64", shape=(8,))},
            "tensor some is stored as I64; readable are F32, F16, BF16",
        ),
        ({"some": entry(dtype="F8_E4M3", shape=(64,))}, "tensor some is stored as F8_E4M3"),
        ({"some": entry(shape=())}, "tensor some is a single number"),
        ({"some": entry(shape=(-4, -4))}, "not that of a .safetensors file"),
        ({"some": entry(dtype=7)}, "not that of a .safetensors file"),
        ({"some": {"dtype": "F32"}}, "not that of a .safetensors file"),
        ({"some": 3}, "not that of a .safetensors file"),
        ([1, 2], "not that of a .safetensors file"),
        (b'{"a": ', "not that of a .safetensors file"),
        (b"\xff\xfe{}", "not that of a .safetensors file"),
        (b"[" * 100_000, "not that of a .safetensors file"),
        (b'{"a": 1, "a": 2}', "'a' is listed twice"),
        ({"a\nb": entry()}, "not that of a .safetensors file"),
        ({"some": entry(dtype="F\n32")}, "not that of a .safetensors file"),
    ],
)
def test_headers_that_lie(header: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", header)
    with pytest.raises(SourceError, match=message) as caught:
        stored_tensors(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_lengths_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for length in (1 << 63, 1 << 20):
        with pytest.raises(SourceError, match="its header ends at byte"):
            stored_tensors(write(path, {"some": entry()}, length=length))
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="the file is empty"):
        stored_tensors(path)
    write(path, {"some": entry()}, length=100_000_001)
    with path.open("r+b") as file:
        file.truncate(1 << 30)
    with pytest.raises(SourceError, match="a header of 100000001 bytes is more than the format allows"):
        stored_tensors(path)


def test_cut_anywhere(tmp_path: Path) -> None:
    save_file({"a": random(6, 4), "b": random(9).astype(np.float16)}, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(SourceError, match=r"cut short.*; download it again"):
            stored_tensors(tmp_path / "cut")


@given(data=st.data())
@FUZZ
def test_a_damaged_file_is_one_line_or_tensors(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": random(6, 4), "b": random(9).astype(np.float16)}, path)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 60))
    junk = data.draw(st.binary(min_size=1, max_size=4))
    content[at : at + len(junk)] = junk
    path.write_bytes(content)
    with contextlib.suppress(SourceError):
        for tensor in stored_tensors(path).values():
            assert tensor.rows(0, tensor.shape[0]).shape == tensor.shape
