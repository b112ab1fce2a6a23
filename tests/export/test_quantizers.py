"""Every quantizer in the folder: what onnxruntime computes equals numpy on the weights that are left.

The tolerance is not chosen: it follows from how far the quantizer says that its kernel rounds activations.
"""

import importlib
import pkgutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from random_models import ArrayTensor
from sardonyx.export import quantizers
from sardonyx.export.checkpoint import Float32
from sardonyx.export.onnx_builder import OnnxBuilder
from sardonyx.export.quantizers import Quantizer
from sardonyx.export.quantizers.nbits import NBits
from sardonyx.export.quantizers.w8a8 import W8A8
from sardonyx.export.rounding import SHARES, STEPS
from sardonyx.export.weight_file import WeightFile
from sardonyx.export.weights import Matrix
from sardonyx.models.graph import Weight

FLOAT_ROUNDING = 1e-5
"""Relative to the sum of magnitudes: float32 additions in any order."""


def found() -> Iterator[Quantizer]:
    for module in pkgutil.iter_modules(quantizers.__path__):
        yield from importlib.import_module(f"{quantizers.__name__}.{module.name}").EXAMPLES


QUANTIZERS = list(found())
every_quantizer = pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)


def matrix(*parts: Float32) -> Matrix:
    return Matrix(tuple((Weight(f"at.{i}.weight", p.shape), ArrayTensor(p)) for i, p in enumerate(parts)))


def computed(folder: Path, build: Callable[[OnnxBuilder], ir.Value], inputs: dict[str, Any]) -> Any:
    """What onnxruntime makes of a graph."""
    with WeightFile(folder, "weights") as file:
        builder = OnnxBuilder(file, context=1)
        builder.output(build(builder), "y", ir.DataType.FLOAT, [None] * 3)
    ir.save(builder.model("test", "0"), folder / "model.onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    (result,) = ort.InferenceSession(folder / "model.onnx", options).run(["y"], inputs)
    return result


def linear(quantizer: Quantizer, x: Float32, parts: list[Float32], bias: Float32 | None) -> Any:
    def build(g: OnnxBuilder) -> ir.Value:
        value = g.input("x", ir.DataType.FLOAT, [None] * (x.ndim - 1) + [x.shape[-1]])
        added = None if bias is None else g.stored("bias", ir.DataType.FLOAT, bias.shape, lambda: [bias])
        return quantizer.linear(g, value, matrix(*parts), added)

    with tempfile.TemporaryDirectory() as folder:
        return computed(Path(folder), build, {"x": x})


def embedded(quantizer: Quantizer, table: Float32, ids: Any) -> Any:
    def build(g: OnnxBuilder) -> ir.Value:
        return quantizer.embed(g, g.input("ids", ir.DataType.INT64, [None, None]), matrix(table))

    with tempfile.TemporaryDirectory() as folder:
        try:
            return computed(Path(folder), build, {"ids": ids})
        except NotImplementedError as error:
            pytest.skip(str(error))


def assert_equal_but_for_rounding(
    result: Any, quantizer: Quantizer, x: Float32, weights: Float32, bias: Float32 | None = None
) -> None:
    left = quantizer.dequantized(weights).astype(np.float64)
    added = 0 if bias is None else bias
    expected = x.astype(np.float64) @ left.T + added
    # Zero points are multiplied apart: where they cancel codes, the rounding is that of larger numbers.
    largest = np.abs(left).max(1)
    magnitude = np.abs(x).astype(np.float64).sum(-1)[..., None] * largest + np.abs(added)
    bound = quantizer.rounding(x).astype(np.float64) @ np.abs(left).T + FLOAT_ROUNDING * magnitude + 1e-30
    assert result.shape == expected.shape
    assert np.all(np.abs(result - expected) <= bound)


# The kinds of rows that quantizers stumble over. Each gives `[outputs, inputs]`.
def _normal(rng: np.random.Generator, shape: tuple[int, int]) -> Any:
    return rng.standard_normal(shape)


def _outliers(rng: np.random.Generator, shape: tuple[int, int]) -> Any:
    return rng.standard_normal(shape) * np.where(rng.random(shape) < 0.05, 1e6, 1)


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Any]] = {
    "normal": _normal,
    "zero": lambda rng, shape: np.zeros(shape),
    "constant": lambda rng, shape: np.full(shape, rng.standard_normal()),
    "negative": lambda rng, shape: -np.abs(_normal(rng, shape)) - 1,
    "positive": lambda rng, shape: np.abs(_normal(rng, shape)) + 1,
    "outliers": _outliers,
    "huge": lambda rng, shape: _normal(rng, shape) * 1e30,
    "tiny": lambda rng, shape: _normal(rng, shape) * 1e-30,
    "subnormal": lambda rng, shape: _normal(rng, shape) * 1e-40,
    "sparse": lambda rng, shape: _normal(rng, shape) * (rng.random(shape) < 0.03),
}


@st.composite
def weights(draw: st.DrawFn, rows: st.SearchStrategy[int] = st.integers(1, 9)) -> Float32:  # noqa: B008
    """Rows of mixed kinds and an odd number of columns as often as not."""
    columns = draw(st.integers(1, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=3))
    parts = [KINDS[kind](rng, (draw(rows), columns)) for kind in kinds]
    return np.concatenate(parts).astype(np.float32)


@every_quantizer
@pytest.mark.parametrize("outputs", [1, 7, 64])
@pytest.mark.parametrize("inputs", [1, 5, 16, 33, 64, 96, 250])
@pytest.mark.parametrize("biased", [False, True])
def test_linear(quantizer: Quantizer, outputs: int, inputs: int, biased: bool) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, inputs)).astype(np.float32)
    x = rng.standard_normal((2, 3, inputs)).astype(np.float32)
    bias = rng.standard_normal(outputs).astype(np.float32) if biased else None
    assert_equal_but_for_rounding(linear(quantizer, x, [weight], bias), quantizer, x, weight, bias)


@every_quantizer
@given(weight=weights(), x=weights(rows=st.integers(1, 3)))
@settings(max_examples=40)
def test_linear_on_awkward_numbers(quantizer: Quantizer, weight: Float32, x: Float32) -> None:
    columns = min(weight.shape[1], x.shape[1])
    weight, x = weight[:, :columns], np.clip(x[:, :columns], -1e6, 1e6)
    x[np.abs(x) < 1e-12] = 0  # kernels may flush such activations to zero, and networks have none
    assert_equal_but_for_rounding(linear(quantizer, x, [weight], None), quantizer, x, weight)


@every_quantizer
def test_matrices_that_share_an_input_are_stacked(quantizer: Quantizer) -> None:
    rng = np.random.default_rng(1)
    parts = [rng.standard_normal((rows, 48)).astype(np.float32) for rows in (5, 1, 32)]
    x = rng.standard_normal((4, 48)).astype(np.float32)
    result = linear(quantizer, x, parts, None)
    assert_equal_but_for_rounding(result, quantizer, x, np.concatenate(parts))


@every_quantizer
@given(table=weights(), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_embedded_rows_are_the_rows_that_are_left(quantizer: Quantizer, table: Float32, seed: int) -> None:
    ids = np.random.default_rng(seed).integers(0, len(table), (2, 3))
    assert np.array_equal(embedded(quantizer, table, ids), quantizer.dequantized(table)[ids])


@every_quantizer
def test_a_tied_table_is_stored_once(quantizer: Quantizer, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    table = rng.standard_normal((40, 48)).astype(np.float32)
    sizes: list[int] = []

    def build(g: OnnxBuilder) -> ir.Value:
        try:
            x = quantizer.embed(g, g.input("ids", ir.DataType.INT64, [None]), matrix(table))
        except NotImplementedError as error:
            pytest.skip(str(error))
        g._weights._file.flush()
        sizes.append((tmp_path / "weights").stat().st_size)
        return quantizer.linear(g, x, matrix(table), None)

    ids = np.arange(40)
    result = computed(tmp_path, build, {"ids": ids})
    assert (tmp_path / "weights").stat().st_size == sizes[0]
    assert_equal_but_for_rounding(result, quantizer, quantizer.dequantized(table), table)


@every_quantizer
@given(rows=weights())
@settings(max_examples=60)
def test_what_is_left_does_not_depend_on_company(quantizer: Quantizer, rows: Float32) -> None:
    """Rows are quantized one by one, so that the size of the pieces they are read in changes nothing."""
    together = quantizer.dequantized(rows)
    assert together.dtype == np.float32
    assert np.isfinite(together).all()
    for row, left in zip(rows, together, strict=True):
        assert np.array_equal(quantizer.dequantized(row[None])[0], left)


SCALE_STEP = 2 ** (1 / STEPS)
"""The scales that a byte can name are that far apart."""


@given(rows=weights())
@settings(max_examples=100)
def test_8_bits_are_off_by_half_a_step_at_most(rows: Float32) -> None:
    largest = np.abs(rows.astype(np.float64)).max(1)
    for start in range(0, rows.shape[1], 32):
        block = rows[:, start : start + 32].astype(np.float64)
        covering = np.maximum(np.abs(block).max(1), largest * SHARES[-1])
        left = NBits(8).dequantized(rows)[:, start : start + 32]
        step = covering[:, None] / 127 * SCALE_STEP
        assert np.all(np.abs(left - block) <= 0.5001 * step + 1e-35)


@given(rows=weights())
@settings(max_examples=100)
def test_4_bits_are_off_by_a_step_on_average_at_most(rows: Float32) -> None:
    """Half a step for each weight, and as much because the zero point is a whole number."""
    for start in range(0, rows.shape[1], 32):
        block = rows[:, start : start + 32].astype(np.float64)
        step = (block.max(1, initial=0) - block.min(1, initial=0)) / 15 * SCALE_STEP
        left = NBits(4).dequantized(rows[:, start : start + 32])
        assert np.all(((left - block) ** 2).mean(1) <= step**2 + 1e-70)


@given(rows=weights())
@settings(max_examples=100)
def test_w8a8_is_off_by_half_a_step_at_most(rows: Float32) -> None:
    step = np.abs(rows.astype(np.float64)).max(1) / 127
    assert np.all(np.abs(W8A8().dequantized(rows) - rows) <= 0.5001 * step[:, None] + 1e-37)


@pytest.mark.parametrize("quantizer", [W8A8(), W8A8(step=0.02)], ids=str)
def test_w8a8_keeps_tokens_apart(quantizer: W8A8) -> None:
    """Zeros become zeros, and a token that is no number spoils none of the others."""
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((24, 48)).astype(np.float32)
    x = rng.standard_normal((2, 3, 48)).astype(np.float32)
    x[0, 1], x[1, 0, 7], x[1, 2] = 0, np.nan, 1e30
    found = linear(quantizer, x, [weight], None)
    assert not found[0, 1].any()
    for place in ((0, 0), (0, 2), (1, 1)):
        alone = linear(quantizer, x[place][None, None], [weight], None)
        np.testing.assert_array_equal(found[place], alone[0, 0])


@pytest.mark.parametrize("options", [{"bits": 3}, {"bits": 4, "block": 24}, {"bits": 8, "block": 512}])
def test_nbits_refuses_what_the_kernel_has_not(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="bits are 4 or 8, blocks 16, 32, 64, 128, 256"):
        NBits(**options)
