"""Rotary frequencies against their papers' formulas, written out once more."""

import math
from typing import Any

import pytest

from sardonyx.models.config import ConfigError
from sardonyx.models.graph import LongRotation, Rotation
from sardonyx.models.parts.rope import SCALINGS, frequencies, rotation

WIDTH, THETA, CONTEXT = 16, 10000.0, 128
PLAIN = [THETA ** (-2 * i / WIDTH) for i in range(WIDTH // 2)]


def rotated(**config: Any) -> Any:
    return rotation({"max_position_embeddings": CONTEXT, **config}, WIDTH)


def scaled(kind: str, **fields: Any) -> Any:
    return rotated(rope_scaling={"rope_type": kind, **fields})


def test_frequencies_are_those_of_the_paper() -> None:
    assert frequencies(THETA, WIDTH) == pytest.approx(PLAIN)
    assert rotated() == Rotation(tuple(frequencies(THETA, WIDTH)))
    assert rotated(rope_theta=500.0).frequencies[1] == pytest.approx(500 ** (-2 / WIDTH))


@pytest.mark.parametrize(("share", "pairs"), [(0.25, 2), (0.5, 4), (1.0, 8)])
def test_a_part_of_each_head_is_turned(share: float, pairs: int) -> None:
    found = rotated(partial_rotary_factor=share).frequencies
    assert found == pytest.approx([THETA ** (-2 * i / (2 * pairs)) for i in range(pairs)])


@pytest.mark.parametrize("share", [0.05, 0.2, 1.5])
def test_a_part_that_cannot_be_turned_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="partial_rotary_factor rotates"):
        rotated(partial_rotary_factor=share)


def test_linear_stretches_all() -> None:
    assert scaled("linear", factor=4.0).frequencies == pytest.approx([f / 4 for f in PLAIN])


def test_llama3_keeps_short_waves_and_stretches_long_ones() -> None:
    fields = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    found = scaled("llama3", original_max_position_embeddings=64, **fields).frequencies
    for plain, one in zip(PLAIN, found, strict=True):
        wavelength = 2 * math.pi / plain
        if wavelength < 64 / 4:
            assert one == plain
        elif wavelength > 64 / 1:
            assert one == pytest.approx(plain / 8)
        else:
            smooth = (64 / wavelength - 1) / (4 - 1)
            assert one == pytest.approx((1 - smooth) * plain / 8 + smooth * plain)


def test_yarn_is_plain_at_one_end_and_stretched_at_the_other() -> None:
    found = scaled("yarn", factor=4.0, original_max_position_embeddings=32)
    assert found.frequencies[0] == PLAIN[0]
    assert found.frequencies[-1] == pytest.approx(PLAIN[-1] / 4)
    assert all(f / 4 <= one <= f * (1 + 1e-12) for f, one in zip(PLAIN, found.frequencies, strict=True))
    assert found.magnitude == pytest.approx(0.1 * math.log(4) + 1)
    assert scaled("yarn", factor=4.0, attention_factor=1.25).magnitude == 1.25


def test_longrope_divides_by_what_it_is_told_on_either_side_of_the_first_context() -> None:
    short, long = [1.0] * 8, [float(i) for i in range(1, 9)]
    found = scaled("longrope", short_factor=short, long_factor=long, original_max_position_embeddings=32)
    assert isinstance(found, LongRotation)
    assert found.at(32).frequencies == pytest.approx(PLAIN)
    assert found.at(33).frequencies == pytest.approx([f / d for f, d in zip(PLAIN, long, strict=True)])
    assert found.long.magnitude == pytest.approx(math.sqrt(1 + math.log(4) / math.log(32)))


def test_transformers_5_says_all_in_one_field() -> None:
    stated = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0, "partial_rotary_factor": 0.5}
    expected = rotated(
        rope_theta=500.0, partial_rotary_factor=0.5, rope_scaling={"type": "linear", "factor": 2.0}
    )
    assert rotated(rope_parameters=stated) == expected


@pytest.mark.parametrize("kind", SCALINGS)
def test_a_number_that_nobody_reads_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"'{kind}' has twist, which is not known"):
        scaled(kind, factor=2.0, twist=1)


@pytest.mark.parametrize(
    ("scaling", "words"),
    [
        ({"rope_type": "spiral"}, "'spiral' is not known; known: default"),
        ({"rope_type": "linear"}, "factor is missing"),
        ({"rope_type": "linear", "factor": -1}, "factor is -1"),
        ({"rope_type": "llama3", "factor": 8.0}, "is missing"),
        ({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0] * 8}, "short_factor is"),
    ],
)
def test_a_scaling_at_fault_is_refused(scaling: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rotated(rope_scaling=scaling)
