"""The class names that a training script left beside its tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from vitral.weights.stand_ins import StandIn

NAMES = """
    classes class_names classnames labels label_names names categories class_list
    id2label idx_to_class idx2label label2id class_to_idx
"""
DEEPEST = 4  # of the settings in a file
MOST = 100_000  # settings that are looked at


def find(settings: Mapping[str, Any], count: int) -> tuple[tuple[str, ...], str] | None:
    """Return `count` names and where they stood in the settings; None where nothing names them.

    They may be a list of texts, a mapping from numbers to texts, or one from texts to numbers.
    """
    for place, value in itertools.islice(_walk(settings, "", 0), MOST):
        if place.rpartition(".")[2].lower() in NAMES.split():
            names = _names(value, count)
            if names is not None:
                return names, place
    return None


def _walk(settings: Mapping[Any, Any], above: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Each setting with its dotted name, those nearest to the top first."""
    inner = []
    for key, value in settings.items():
        place = f"{above}.{key}" if above else str(key)
        held = value.values if isinstance(value, StandIn) else value
        yield place, held
        if isinstance(held, Mapping) and depth < DEEPEST:
            inner.append((held, place))
    for held, place in inner:
        yield from _walk(held, place, depth + 1)


def _names(value: Any, count: int) -> tuple[str, ...] | None:
    """The names in the order of the logits, if this is a list of them or a mapping."""
    if isinstance(value, Mapping):
        if set(value.values()) == set(range(count)) if _all_numbers(value.values()) else False:
            value = {number: name for name, number in value.items()}
        value = [value.get(i, value.get(str(i))) for i in range(len(value))]
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    names = tuple(name for name in value if isinstance(name, str) and name)
    return names if len(set(names)) == count else None


def _all_numbers(values: Any) -> bool:
    return all(type(value) is int for value in values)
