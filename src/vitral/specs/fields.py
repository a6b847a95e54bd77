"""Settings classes from plain values: types, closed choices, and the assignments of --set."""

from __future__ import annotations

import copy
import json
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vitral.errors import SpecError
from vitral.wording import did_you_mean

T = TypeVar("T")


@cache
def _hints(owner: Any) -> dict[str, Any]:  # a millisecond each time otherwise
    return get_type_hints(owner)


def choice(settings: object, name: str, owner: type) -> None:
    """Refuse a value that is not among the Literal options of a field, with a SpecError."""
    coerce(_hints(owner)[name], getattr(settings, name), f"{owner.__name__}.{name}")


def pair(name: str, value: Any) -> tuple[int, int]:
    """Read (height, width) from an int or a pair of positive ints; SpecError for anything else."""
    values = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(values) != 2 or not all(type(v) is int and v > 0 for v in values):
        raise SpecError(f"{name} is a positive number or (height, width), not {value!r}.")
    return values


def from_mapping(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build a settings class from plain JSON values, nested classes included.

    Raises SpecError for an unknown name (with a suggestion), a missing one, or a wrong type.
    """
    if not isinstance(values, Mapping):
        raise SpecError(f"{cls.__name__} is a set of named values, not {values!r:.40}.")
    hints = get_type_hints(cls)
    earlier: Mapping[str, Any] = getattr(cls, "EARLIER", {})  # values that were called otherwise
    names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise SpecError(f"{cls.__name__} has no field '{name}'; {did_you_mean(name, names)}")
    converted = {
        name: coerce(hints[name], earlier.get(f"{name}={value}", value), f"{cls.__name__}.{name}")
        for name, value in values.items()
    }
    try:
        return cls(**converted)
    except TypeError as error:
        raise SpecError(f"{cls.__name__}: {error}.") from None


def assign(values: dict[str, Any], assignments: Iterable[str], owner: str) -> dict[str, Any]:
    """Return nested settings with 'a.b=value' assignments applied; values are JSON, else text.

    Raises SpecError with 'did you mean' for a name that does not exist; `owner` is what the
    message calls the outermost settings.
    """
    values = copy.deepcopy(values)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise SpecError(f"--set needs NAME=VALUE, like optimizer.lr=3e-4, not '{assignment}'.")
        *parents, name = path.strip().split(".")
        inner = values
        holder = owner
        for parent in parents:
            if not isinstance(inner.get(parent), dict):
                raise SpecError(f"{holder} has no part '{parent}'; {did_you_mean(parent, inner)}")
            inner = inner[parent]
            holder = parent
        if name not in inner:
            same = [field for field in flat(values) if field.rpartition(".")[2] == name]
            meant = f"did you mean {' or '.join(map(repr, same))}?" if same else None
            raise SpecError(f"{holder} has no field '{name}'; {meant or did_you_mean(name, inner)}")
        if isinstance(inner[name], dict):
            raise SpecError(f"'{path}' has fields of its own: {', '.join(inner[name])}.")
        text = re.sub(r"^([+-]?)\.(\d)", r"\g<1>0.\2", text.strip())  # JSON knows no .5
        try:
            inner[name] = json.loads(text)
        except json.JSONDecodeError:
            inner[name] = text.strip()
    return values


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Write nested settings as dotted fields, the names that `assign` takes."""
    dotted: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, Mapping)
        dotted |= flat(value, f"{above}{name}.") if inner else {f"{above}{name}": value}
    return dotted


def coerce(hint: Any, value: Any, field: str) -> Any:
    """Return a value as the type that `hint` asks for, or raises SpecError with what that is.

    JSON has no tuples and does not tell 1 from 1.0, so lists become tuples and ints become floats
    where the field is a float; nothing else is converted silently.
    """
    origin = get_origin(hint)
    arguments = get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _coerce_union(arguments, value, field)
    if origin is Literal:
        if value not in arguments:
            shown = " | ".join(str(option) for option in arguments)
            raise SpecError(f"{field} is one of {shown}, not {value!r}.")
        return value
    if origin is tuple:
        return _coerce_tuple(arguments, value, field)
    if is_dataclass(hint):
        return _coerce_settings(hint, value, field)
    return _coerce_plain(hint, value, field)


def _coerce_union(options: tuple[Any, ...], value: Any, field: str) -> Any:
    if value is None and type(None) in options:
        return None
    kinds = {_kind_of(option): option for option in options if is_dataclass(option)}
    if len(kinds) > 1 and isinstance(value, Mapping):
        kind = value.get("kind", next(iter(kinds)))  # values older than the union are of the first
        if kind not in kinds:
            raise SpecError(f"{field}.kind is one of {' | '.join(kinds)}, not {kind!r}.")
        return coerce(kinds[kind], value, field)
    failure = SpecError(f"{field} cannot be {value!r}.")
    for option in options:
        if option is not type(None):
            try:
                return coerce(option, value, field)
            except SpecError as error:
                failure = error
    raise failure


def _kind_of(settings: Any) -> str:
    """What tells a settings class from the others of a union: the default of its `kind`."""
    return str(next((f.default for f in fields(settings) if f.name == "kind"), settings.__name__))


def _coerce_tuple(arguments: tuple[Any, ...], value: Any, field: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise SpecError(f"{field} is a list like [1,2], not {value!r}.")
    values = tuple(value)
    if arguments[-1] is Ellipsis:
        return tuple(coerce(arguments[0], item, field) for item in values)
    if len(values) != len(arguments):
        raise SpecError(f"{field} needs {len(arguments)} values, not {len(values)}: {value!r}.")
    return tuple(coerce(hint, item, field) for hint, item in zip(arguments, values, strict=True))


def _coerce_settings(cls: Any, value: Any, field: str) -> Any:
    if isinstance(value, cls):
        return value
    if hasattr(cls, "parse") and not isinstance(value, Mapping):
        return cls.parse(value if isinstance(value, str) else str(value), field)
    if isinstance(value, Mapping):
        return from_mapping(cls, value)
    raise SpecError(f"{field} holds the fields of {cls.__name__}, not {value!r}.")


def _coerce_plain(hint: Any, value: Any, field: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (bool, int, float, str):
        if type(value) is not hint:
            names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
            raise SpecError(f"{field} is {names[hint]}, not {value!r}.")
        return value
    raise TypeError(f"{field}: settings cannot hold the type {hint}")
