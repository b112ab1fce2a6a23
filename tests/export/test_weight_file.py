"""The file of weights: where tensors lie, and that what was written is what is read."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sardonyx.export.weight_file import ALIGNMENT, WeightFile


@given(
    sizes=st.lists(st.integers(0, 5000), max_size=5),
    pieces=st.integers(1, 5),
)
def test_tensors_follow_each_other_on_pages(
    sizes: list[int], pieces: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    arrays = [np.random.default_rng(i).integers(0, 256, n).astype(np.uint8) for i, n in enumerate(sizes)]
    with WeightFile(folder, "data") as file:
        tensors = [
            file.append(str(i), ir.DataType.UINT8, array.shape, np.array_split(array, pieces))
            for i, array in enumerate(arrays)
        ]
    written = (folder / "data").read_bytes()
    end = 0
    for array, tensor in zip(arrays, tensors, strict=True):
        assert tensor.offset is not None
        assert end <= tensor.offset < end + ALIGNMENT
        assert tensor.offset % ALIGNMENT == 0
        assert not any(written[end : tensor.offset])
        end = tensor.offset + array.nbytes
        assert written[tensor.offset : end] == array.tobytes()
        assert np.array_equal(tensor.numpy(), array)
    assert len(written) == end or not sizes[-1]


@pytest.mark.parametrize("array", [np.arange(12).reshape(3, 4).T, np.arange(20)[::2], np.float32(3)])
def test_pieces_may_lie_in_memory_as_they_like(tmp_path: Path, array: NDArray[Any]) -> None:
    with WeightFile(tmp_path, "data") as file:
        tensor = file.append("a", ir.DataType.from_numpy(array.dtype), array.shape, [array])
    assert np.array_equal(tensor.numpy(), array)


def test_an_alias_is_the_same_bytes(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32)
    with WeightFile(tmp_path, "data") as file:
        tensor = file.append("a", ir.DataType.FLOAT, (6,), [array])
        alias = file.alias("b", tensor, (2, 3))
    assert (tmp_path / "data").stat().st_size == array.nbytes
    assert alias.name == "b"
    assert np.array_equal(alias.numpy(), array.reshape(2, 3))


def test_too_few_bytes_are_a_defect(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"a: 8 bytes written for 12 of FLOAT \[3\]"),
        WeightFile(tmp_path, "data") as file,
    ):
        file.append("a", ir.DataType.FLOAT, (3,), [np.zeros(2, np.float32)])


def test_the_file_is_closed_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(ValueError), WeightFile(tmp_path, "data") as file:
        raise ValueError
    assert file._file.closed
