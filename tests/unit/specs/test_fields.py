from dataclasses import dataclass
from typing import Any, Literal

import pytest

from vitral.errors import SpecError
from vitral.specs.fields import choice, coerce, from_mapping, pair


@dataclass(frozen=True, kw_only=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True, kw_only=True)
class Outer:
    kind: Literal["a", "b"] = "a"
    rate: float = 0.5
    shape: tuple[int, int] = (1, 2)
    many: tuple[float, ...] = ()
    inner: Inner | None = None
    required: str


def test_plain_values_become_the_settings() -> None:
    built = from_mapping(
        Outer,
        {"rate": 1, "shape": [3, 4], "many": [1, 2.5], "inner": {"depth": 2}, "required": "x"},
    )
    assert built == Outer(
        rate=1.0, shape=(3, 4), many=(1.0, 2.5), inner=Inner(depth=2), required="x"
    )
    assert isinstance(built.rate, float)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"required": "x", "rat": 1}, "did you mean 'rate'"),
        ({"required": "x", "kind": "c"}, "a | b, not 'c'"),
        ({"required": "x", "rate": "fast"}, "Outer.rate is a number, not 'fast'"),
        ({"required": "x", "rate": True}, "a number"),
        ({"required": 3}, "Outer.required is a text"),
        ({"required": "x", "shape": [1, 2, 3]}, "needs 2 values, not 3"),
        ({"required": "x", "shape": 3}, "a list like"),
        (
            {"required": "x", "inner": {"deep": 2}},
            "Inner has no field 'deep'; did you mean 'depth'",
        ),
        ({"required": "x", "inner": {"depth": 1.5}}, "Inner.depth is a whole number"),
        ({"required": "x", "inner": 3}, "holds the fields of Inner"),
        ({}, "required"),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        from_mapping(Outer, values)
    assert words in str(caught.value)


def test_none_only_where_it_is_allowed() -> None:
    assert coerce(int | None, None, "x") is None
    with pytest.raises(SpecError):
        coerce(int, None, "x")
    assert coerce(Any, object, "x") is object


def test_a_type_that_settings_cannot_hold_is_our_mistake() -> None:
    with pytest.raises(TypeError, match="settings cannot hold"):
        coerce(bytes, b"", "x")


def test_pair() -> None:
    assert pair("size", 3) == (3, 3)
    assert pair("size", [3, 4]) == (3, 4)
    for bad in (0, (1, 2, 3), (1, -2), (1.5, 2)):
        with pytest.raises(SpecError, match="size"):
            pair("size", bad)


def test_choice() -> None:
    choice(Outer(required="x"), "kind", Outer)
    with pytest.raises(SpecError, match=r"Outer\.kind"):
        choice(Outer(required="x", kind="z"), "kind", Outer)  # type: ignore[arg-type]
