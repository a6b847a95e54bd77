"""Names of ImageNet's classes by WordNet identifier, which its folders are called (n01440764).

The logits of published weights stand in the sorted order of the identifiers: the thousand classes
of ILSVRC 2012, and the 21,843 of ImageNet-21k as Google numbers them (21,841 without two that the
release of autumn 2011 does not have). The files are facts about WordNet 3.0 (Princeton University).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from vitral.catalog.checkpoints import labels

_ID = re.compile(r"n\d{8}")
_NOT_IN_2011 = frozenset({"n03931044", "n09859684"})
_ALIKE = 0.95  # share of a thousand names that agree with ours, so that they are ImageNet's


def is_id(name: str) -> bool:
    """Tells whether a name is a WordNet identifier."""
    return _ID.fullmatch(name) is not None


@cache
def names(count: int) -> dict[str, str]:
    """Maps the identifiers to the names of ImageNet's classes, in the order of so many logits.

    Empty where ImageNet has no such head.
    """
    if count == 1000:
        return dict(zip(_lines("imagenet-1k.txt"), labels("imagenet-1k"), strict=True))
    rows = [line.partition("\t") for line in _lines("imagenet-21k.tsv")]
    whole = {identifier: name for identifier, _, name in rows}
    if count == len(whole) - len(_NOT_IN_2011):
        return {key: name for key, name in whole.items() if key not in _NOT_IN_2011}
    return whole if count == len(whole) else {}


def other_names(classes: Sequence[str]) -> dict[str, str]:
    """Maps further names that folders may have to the classes of a model; empty for other models.

    A model that names its classes in words knows them by identifier as well, and one that names
    them by identifier knows ImageNet's words.
    """
    if classes and all(map(is_id, classes)):
        words = names(1000) | {k: v for k, v in names(21843).items() if k not in names(1000)}
        return {words[name]: name for name in classes if name in words}
    known = names(len(classes))
    if not known:
        return {}
    pairs = list(zip(known.values(), classes, strict=True))
    alike = sum(ours.lower() in theirs.lower() for ours, theirs in pairs)
    if alike < _ALIKE * len(classes):
        return {}
    return dict(zip(known, classes, strict=True))


def _lines(name: str) -> list[str]:
    text = (files("vitral.catalog") / "wordnet_ids" / name).read_text(encoding="utf-8")
    return text.splitlines()
