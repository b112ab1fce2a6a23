"""Roundings that come again are those that were made, to the bit."""

import numpy as np
import pytest

from sardonyx.export.quantizers.nbits import NBits
from sardonyx.export.rounded_before import RoundedBefore
from sardonyx.export.rounding import Blocks, rounded

ROWS = np.random.default_rng(3).standard_normal((6, 96)).astype(np.float32)


def never() -> Blocks:
    raise AssertionError("rounded again")


@pytest.mark.parametrize("block", [16, 32])
def test_what_was_made_comes_back(block: int) -> None:
    made = rounded(ROWS, 4, block)
    with RoundedBefore() as before:
        assert before.blocks(ROWS, lambda: made) is made
        other = rounded(-ROWS, 4, block)
        before.blocks(-ROWS, lambda: other)
        for rows, expected in ((ROWS, made), (-ROWS, other), (np.asfortranarray(ROWS), made)):
            found = before.blocks(rows, never)
            for name in ("codes", "exponents", "zero_points", "sizes"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_quantizer_keeps_what_it_calibrated_and_is_the_same_quantizer() -> None:
    x = np.random.default_rng(4).standard_normal((300, 96)).astype(np.float32)
    moment = [(x.T @ x / len(x)).astype(np.float32)]
    with RoundedBefore() as before:
        keeping = NBits(4, before=before)
        assert keeping == NBits(4)
        calibrated = keeping.dequantized(ROWS, moment)
        np.testing.assert_array_equal(calibrated, NBits(4).dequantized(ROWS, moment))
        np.testing.assert_array_equal(keeping.dequantized(ROWS), calibrated)
    assert not np.array_equal(calibrated, NBits(4).dequantized(ROWS))
