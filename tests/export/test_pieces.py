"""Tensors made of others, against numpy on the whole arrays: any rows, decoded and raw."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sardonyx.export.checkpoint import LazyTensor
from sardonyx.export.checkpoint.layouts import MisfitError, canonical, split, squeezed, turned
from sardonyx.export.checkpoint.pieces import Interleaved, Joined, Rows, flattened, shifted, transposed
from sardonyx.export.checkpoint.stored import Deinterleaved


class Whole:
    """A stored tensor in memory, whose raw bytes are its float32 numbers."""

    dtype = "float32"

    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array, np.float32)
        self.shape = self.array.shape

    def rows(self, start: int, stop: int) -> Any:
        assert 0 <= start <= stop <= len(self.array)
        return self.array[start:stop]

    def raw(self, start: int, stop: int) -> Any:
        return np.ascontiguousarray(self.rows(start, stop)).view(np.uint8).reshape(stop - start, -1)


def numbered(rows: int, columns: int = 3, first: int = 0) -> Whole:
    return Whole(first + np.arange(rows * columns).reshape(rows, columns))


def check(found: LazyTensor, expected: Any, cut: tuple[int, int]) -> None:
    """All of it, and some rows of it, one at least."""
    assert tuple(found.shape) == expected.shape
    start, last = sorted(at % len(expected) for at in cut)
    for a, b in ((0, len(expected)), (start, last + 1)):
        np.testing.assert_array_equal(found.rows(a, b), expected[a:b])
        raw = found.raw(a, b)
        np.testing.assert_array_equal(
            np.ascontiguousarray(raw).view(np.float32).reshape(expected[a:b].shape), expected[a:b]
        )


sizes = st.integers(1, 6)
cuts = st.tuples(st.integers(0, 100), st.integers(0, 100))


@given(sizes, sizes, st.tuples(sizes, sizes), cuts)
def test_rows_out_of_each_group(
    groups: int, size: int, within: tuple[int, int], cut: tuple[int, int]
) -> None:
    start, stop = sorted(at % (size + 1) for at in within)
    whole = numbered(groups * size)
    expected = whole.array.reshape(groups, size, 3)[:, start:stop].reshape(-1, 3)
    if len(expected):
        check(Rows(whole, groups, start, stop), expected, cut)


@given(st.lists(sizes, min_size=1, max_size=5), cuts)
def test_one_after_another(counts: list[int], cut: tuple[int, int]) -> None:
    parts = [numbered(count, first=100 * i) for i, count in enumerate(counts)]
    check(Joined(parts), np.concatenate([part.array for part in parts]), cut)


@given(sizes, sizes, cuts)
def test_row_by_row_in_turns(turns: int, rows: int, cut: tuple[int, int]) -> None:
    parts = [numbered(rows, first=100 * i) for i in range(turns)]
    check(Interleaved(parts), np.stack([part.array for part in parts], axis=1).reshape(-1, 3), cut)


@given(sizes, sizes, cuts)
def test_heads_whose_pairs_lay_side_by_side(heads: int, pairs: int, cut: tuple[int, int]) -> None:
    """Row 2j + c of each head goes to c * pairs + j."""
    whole = numbered(heads * 2 * pairs)
    expected = whole.array.reshape(heads, pairs, 2, 3).swapaxes(1, 2).reshape(-1, 3)
    check(Deinterleaved(whole, heads), expected, cut)


@given(sizes, sizes, cuts)
def test_turned_shifted_and_flat(rows: int, columns: int, cut: tuple[int, int]) -> None:
    whole = numbered(rows, columns)
    check(transposed(whole), whole.array.T, cut)
    check(shifted(whole, 1), whole.array + 1, cut)
    check(flattened(whole), whole.array.reshape(-1), cut)
    vector = Whole(np.arange(rows))
    assert transposed(vector) is vector


def test_a_layout_renames_cuts_and_joins_by_number() -> None:
    layout = {
        "h.*.qkv": turned(split(lambda config: (1, (config["q"],)), "layers.*.q", "layers.*.kv")),
        "h.*.expert.*.up": "layers.*.up",
        "h.*.conv.weight": squeezed("layers.*.conv.weight"),
    }
    whole = numbered(4, 6)
    stored = {
        "h.10.qkv.weight": whole,
        "h.10.qkv.bias": Whole(np.arange(6)),
        "h.0.expert.1.up.weight": numbered(2, first=50),
        "h.0.expert.0.up.weight": numbered(2),
        "h.3.conv.weight": Whole(np.arange(12).reshape(4, 1, 3)),
        "norm.weight": Whole(np.ones(3)),
    }
    found = canonical(stored, layout, {"q": 2})
    arrays = {name: tensor.rows(0, tensor.shape[0]) for name, tensor in found.items()}
    np.testing.assert_array_equal(arrays.pop("layers.10.q.weight"), whole.array.T[:2])
    np.testing.assert_array_equal(arrays.pop("layers.10.kv.weight"), whole.array.T[2:])
    assert arrays.pop("layers.10.q.bias").tolist() == [0, 1]
    assert arrays.pop("layers.10.kv.bias").tolist() == [2, 3, 4, 5]
    assert arrays.pop("layers.0.up.weight")[:, 0].tolist() == [0, 3, 50, 53]
    assert arrays.pop("layers.3.conv.weight").tolist() == np.arange(12).reshape(4, 3).tolist()
    assert arrays.pop("norm.weight").tolist() == [1, 1, 1]
    assert not arrays


def test_what_cannot_be_cut_is_named() -> None:
    layout = {"h.*.qkv": split(lambda config: (4, (1,)), "q", "k")}
    with pytest.raises(MisfitError, match=r"tensor h\.2\.qkv\.weight has 6 rows, not 4 equal groups"):
        canonical({"h.2.qkv.weight": numbered(6)}, layout, {})
