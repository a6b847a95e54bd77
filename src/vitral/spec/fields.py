"""Checks that every frozen settings class shares: closed choices, pairs, unknown names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from vitral.errors import SpecError

T = TypeVar("T")


def suggest(name: str, known: Iterable[str]) -> str:
    """'; did you mean 'X'?' when something close is known, otherwise the list of known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}."


def choice(settings: object, name: str, owner: type) -> None:
    """Refuse a value that is not among the Literal options of a field."""
    hint = get_type_hints(owner)[name]
    options = [
        option
        for part in (get_args(hint) if get_origin(hint) is not Literal else (hint,))
        for option in get_args(part)
    ]
    value = getattr(settings, name)
    if value not in options:
        shown = " | ".join(str(option) for option in options)
        raise SpecError(f"{owner.__name__}.{name} is one of {shown}, not {value!r}.")


def pair(name: str, value: Any) -> tuple[int, int]:
    """(height, width) from an int or a pair of positive ints."""
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) != 2 or not all(isinstance(v, int) and v > 0 for v in values):
        raise SpecError(f"{name} is a positive number or (height, width), not {value!r}.")
    return values


def from_mapping(cls: type[T], values: dict[str, Any]) -> T:
    """Build a settings class from plain values; unknown names are an error that suggests one."""
    known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise SpecError(f"{cls.__name__} has no field '{name}'; {suggest(name, known)}")
    return cls(**values)
