"""Fields of a config, read strictly."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sardonyx.models.config import (
    ConfigError,
    flag,
    integer,
    integer_or_none,
    layer_types,
    number,
    number_or_none,
    numbers,
    only,
    require,
)

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
)


@given(VALUES)
def test_a_number_is_what_it_says(value: Any) -> None:
    """Of all that JSON can hold, positive finite numbers pass, as they are; true is none."""
    sound = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    for read, fits in ((number, sound), (integer, sound and isinstance(value, int))):
        if fits:
            assert read({"field": value}, "field") == (float(value) if read is number else value)
        else:
            with pytest.raises(ConfigError, match="field is"):
                read({"field": value}, "field")


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan")])
def test_a_number_that_no_float_can_be_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="field is"):
        number({"field": value}, "field")


@given(VALUES)
def test_a_flag_is_true_or_false(value: Any) -> None:
    if isinstance(value, bool):
        assert flag({"field": value}, "field") is value
    else:
        with pytest.raises(ConfigError, match="field is"):
            flag({"field": value}, "field")


@pytest.mark.parametrize(("read", "default"), [(integer, 3), (number, 2.5), (flag, True)])
def test_absent_and_null_take_the_default(read: Callable[..., Any], default: Any) -> None:
    assert read({}, "field", default) == read({"field": None}, "field", default) == default
    with pytest.raises(ConfigError, match="field is missing"):
        read({}, "field")


@pytest.mark.parametrize("read", [integer_or_none, number_or_none])
def test_null_may_be_an_answer(read: Callable[..., Any]) -> None:
    """Absent takes the default, null says none."""
    assert (read({}, "field", 4), read({"field": None}, "field", 4), read({"field": 2}, "field")) == (
        4,
        None,
        2,
    )


@pytest.mark.parametrize("values", [None, 3, [1.0], [1.0, -2.0], [1.0, "2"], [1.0, 2.0, 3.0]])
def test_so_many_numbers(values: Any) -> None:
    assert numbers({"field": [1, 2.5]}, "field", 2) == (1.0, 2.5)
    with pytest.raises(ConfigError, match="field is"):
        numbers({"field": values}, "field", 2)


def test_layer_types_are_of_kinds_that_are_known() -> None:
    default = ["full_attention", "sliding_attention"]
    assert layer_types({}, default) == default
    assert layer_types({"layer_types": ["full_attention"] * 2}, default) == ["full_attention"] * 2
    for kinds in (["full_attention"], "full_attention", 2, ["full_attention", "linear_attention"]):
        with pytest.raises(ConfigError, match="layer_types"):
            layer_types({"layer_types": kinds}, default)
    with pytest.raises(ConfigError, match="'conv'; known: full_attention, sliding_attention"):
        layer_types({"layer_types": ["conv"] * 2}, default)
    assert layer_types({"layer_types": ["conv"] * 2}, default, known=("conv",)) == ["conv"] * 2


def test_only_what_is_supported() -> None:
    only({}, "field", "a")
    only({"field": None}, "field", "a")
    only({"field": "a"}, "field", "a", "b")
    with pytest.raises(ConfigError, match="field is 'c'; supported: 'a' or 'b'"):
        only({"field": "c"}, "field", "a", "b")
    with pytest.raises(ConfigError, match="field is 1; supported: no such field"):
        only({"field": 1}, "field")


def test_required_fields_are_named() -> None:
    require({"a": 0, "b": False}, "a", "b")
    with pytest.raises(ConfigError, match="b is missing"):
        require({"a": 0, "b": None}, "a", "b")
