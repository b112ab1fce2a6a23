"""Values are held to their annotations, and refused in words that name them."""

from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.values import checked

Share = Annotated[float, Meta(gt=0, le=1, description="a share")]
Id = Annotated[int, Meta(ge=0)]


@pytest.mark.parametrize(
    ("value", "kind", "taken"),
    [
        (1, Share, 1.0),
        (None, Annotated[Share | None, Meta(description="x")], None),
        ([1, 2], tuple[Id, ...], (1, 2)),
        ({1: 2}, dict[Id, float], {1: 2.0}),
        ("b", Literal["a", "b"], "b"),
        (["a", [1]], tuple[str | tuple[int, ...], ...], ("a", (1,))),
    ],
)
def test_what_fits_is_taken_as_its_type(value: Any, kind: Any, taken: Any) -> None:
    assert checked("x", value, kind) == taken


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (2, Share, "x=2 is out of range: it must be above 0 and at most 1"),
        (-1, Share | None, "x=-1 is out of range: it must be above 0 and at most 1"),
        ([3, -1], tuple[Id, ...], "x=[3, -1] is out of range: it must be at least 0"),
        ({-1: 0.5}, dict[Id, float], "x={-1: 0.5} is out of range: it must be at least 0"),
        ("c", Literal["a", "b"], "x='c' is out of range: it must be one of a, b"),
        ("c", bool | Literal["a"], "x='c' is out of range: it must be True, False or a"),
        (float("nan"), float, "x=nan is out of range: it must be finite"),
        ({1: float("inf")}, dict[Id, float], "x={1: inf} is out of range: it must be finite"),
        ((1, float("-inf")), tuple[int, float], "x=(1, -inf) is out of range: it must be finite"),
        ("1", Share, "x='1' is not of type float"),
        (True, Id | None, "x=True is not of type int | None"),
        ("ab", tuple[str | tuple[Id, ...], ...], "x='ab' is not of type tuple[str | tuple[int, ...], ...]"),
        (3, Literal["a", "b"], "x=3 is not of type str"),
    ],
)
def test_what_does_not_fit_is_named(value: Any, kind: Any, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        checked("x", value, kind)
    assert str(caught.value) == message
