"""Tensors in pieces and in stacks, and what is said of those that do not fit."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from random_models import ArrayCheckpoint, ArrayTensor
from sardonyx.export import weights
from sardonyx.export.checkpoint import Float32
from sardonyx.export.weights import Matrix, check_finite, check_weights
from sardonyx.models.graph import Weight
from sardonyx.runtime.errors import SourceError


def matrix(*parts: Float32, seen: list[tuple[int, str]] | None = None) -> Matrix:
    def on_read(values: Float32, name: str) -> None:
        if seen is not None:
            seen.append((values.size, name))

    return Matrix(
        tuple((Weight(f"layers.0.{'abc'[i]}.weight", p.shape), ArrayTensor(p)) for i, p in enumerate(parts)),
        on_read,
    )


@given(
    rows=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    columns=st.integers(1, 20),
    piece=st.integers(1, 100),
    cut=st.tuples(st.integers(0, 20), st.integers(0, 20)),
)
def test_pieces_are_the_whole(rows: list[int], columns: int, piece: int, cut: tuple[int, int]) -> None:
    """However small the pieces: in order, all of the columns asked for, each element shown once."""
    parts = [np.random.default_rng(i).random((n, columns), np.float32) for i, n in enumerate(rows)]
    seen: list[tuple[int, str]] = []
    stack = matrix(*parts, seen=seen)
    assert stack.shape == (sum(rows), columns)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(weights, "CHUNK_ELEMENTS", piece)
        pieces = list(stack.chunks(slice(*cut)))
    assert np.array_equal(np.concatenate(pieces), np.concatenate(parts)[:, slice(*cut)])
    assert all(len(part) * columns <= max(piece, columns) for part in pieces)
    for i, part in enumerate(parts):
        shown = sum(size for size, name in seen if name == f"layers.0.{'abc'[i]}.weight")
        assert shown == part[:, slice(*cut)].size


def test_a_stack_is_named_after_its_parts() -> None:
    part = np.zeros((2, 3), np.float32)
    assert matrix(part).name == "layers.0.a.weight"
    assert matrix(part, part, part).name == "layers.0.a+b+c.weight"


def checkpoint(**shapes: tuple[int, ...]) -> ArrayCheckpoint:
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return ArrayCheckpoint({}, arrays, path=Path("folder/of/model"))


def wanted(**shapes: tuple[int, ...]) -> dict[str, Weight]:
    return {name: Weight(name, shape) for name, shape in shapes.items()}


def test_what_fits_passes() -> None:
    check_weights(checkpoint(a=(2, 3), b=(3,)), wanted(a=(2, 3), b=(3,)), tied=False)


def test_every_difference_is_listed() -> None:
    with pytest.raises(SourceError) as caught:
        check_weights(checkpoint(b=(1,), c=(2, 3), d=(9,)), wanted(a=(1,), b=(1,), c=(3, 2)), tied=False)
    assert str(caught.value) == (
        "folder/of/model: its tensors do not fit its config; "
        "missing: a; not used: d; of another shape: c is [2, 3], the config says [3, 2]"
    )


@pytest.mark.parametrize(("tied", "ok"), [(True, True), (False, False)])
def test_only_a_tied_model_may_carry_its_head_without_use(tied: bool, ok: bool) -> None:
    source = ArrayCheckpoint({}, {"lm_head.weight": np.zeros((1, 1), np.float32)})
    if ok:
        check_weights(source, {}, tied=tied)
    else:
        with pytest.raises(SourceError, match="not used: lm_head"):
            check_weights(source, {}, tied=tied)


@pytest.mark.parametrize("count", [12, 13, 100])
def test_long_lists_are_counted(count: int) -> None:
    names = {f"t{i:03}": (1,) for i in range(count)}
    with pytest.raises(SourceError) as caught:
        check_weights(checkpoint(), wanted(**names), tied=False)
    assert ("more" in str(caught.value)) == (count > 12)
    assert str(caught.value).count("t0") == 12
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    values = np.zeros((3, 4), np.float32)
    check_finite(checkpoint(), values, "a")
    values[1, 2] = value
    with pytest.raises(SourceError, match="folder/of/model: tensor a holds NaN or infinity"):
        check_finite(checkpoint(), values, "a")
