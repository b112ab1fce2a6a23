"""The file of weights: where tensors lie, and that what was written is what is read."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sardonyx.export.weight_file import LINE, PAGE, SMALL, WeightFile


def append(file: WeightFile, name: str, array: NDArray[Any], pieces: list[NDArray[Any]]) -> ir.ExternalTensor:
    return file.append(name, ir.DataType.from_numpy(array.dtype), array.shape, pieces)


@given(
    sizes=st.lists(st.integers(0, 5000) | st.integers(SMALL - 2, SMALL + 2), max_size=5),
    pieces=st.integers(1, 5),
)
def test_tensors_follow_each_other_on_lines_and_pages(
    sizes: list[int], pieces: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    arrays = [np.random.default_rng(i).integers(0, 256, n).astype(np.uint8) for i, n in enumerate(sizes)]
    with WeightFile(folder, "data") as file:
        tensors = [
            append(file, str(i), array, np.array_split(array, pieces)) for i, array in enumerate(arrays)
        ]
    written = (folder / "data").read_bytes()
    end = 0
    for array, tensor in zip(arrays, tensors, strict=True):
        assert tensor.offset is not None
        alignment = LINE if array.nbytes < SMALL else PAGE
        assert end <= tensor.offset < end + alignment
        assert tensor.offset % alignment == 0
        assert not any(written[end : tensor.offset])
        end = tensor.offset + array.nbytes
        assert written[tensor.offset : end] == array.tobytes()
        assert np.array_equal(tensor.numpy(), array)
    assert len(written) == end or not sizes[-1]


@pytest.mark.parametrize("array", [np.arange(12).reshape(3, 4).T, np.arange(20)[::2], np.float32(3)])
def test_pieces_may_lie_in_memory_as_they_like(tmp_path: Path, array: NDArray[Any]) -> None:
    with WeightFile(tmp_path, "data") as file:
        tensor = append(file, "a", array, [array])
    assert np.array_equal(tensor.numpy(), array)


def test_bytes_may_come_after_those_of_tensors_behind(tmp_path: Path) -> None:
    first, second = np.arange(100, dtype=np.uint8), np.arange(50, dtype=np.float32)
    with WeightFile(tmp_path, "data") as file:
        early = file.place("first", ir.DataType.UINT8, first.shape)
        late = append(file, "second", second, [second])
        file.fill(early, [first[:40], first[40:]])
    assert np.array_equal(early.numpy(), first)
    assert np.array_equal(late.numpy(), second)


def test_an_alias_is_the_same_bytes(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32)
    with WeightFile(tmp_path, "data") as file:
        tensor = append(file, "a", array, [array])
        alias = file.alias("b", tensor, (2, 3))
    assert (tmp_path / "data").stat().st_size == array.nbytes
    assert alias.name == "b"
    assert np.array_equal(alias.numpy(), array.reshape(2, 3))


def test_too_few_bytes_are_a_defect(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"a: 8 bytes written for 12 of FLOAT \[3\]"),
        WeightFile(tmp_path, "data") as file,
    ):
        append(file, "a", np.zeros(3, np.float32), [np.zeros(2, np.float32)])


def test_the_file_is_closed_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(ValueError), WeightFile(tmp_path, "data") as file:
        raise ValueError
    assert file._file.closed
