"""The contents of a source in a few values, so that it can be told how other images differ.

A fingerprint says that images changed; this says what of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vitral.data.sources import ScanResult, Split
from vitral.wording import listed

MOST_CLASSES = 100  # whose images are counted one by one
ASPECTS = {
    "names": "files have other names",
    "labels": "files have other labels",
    "sizes": "files have other sizes: they were written anew",
}


def contents_of(
    classes: Sequence[str], parts: Sequence[ScanResult], train: Split, val: Split
) -> dict[str, Any]:
    """Summarise images as plain JSON values: counts, and digests of names, labels and sizes."""
    contents: dict[str, Any] = {"train": len(train), val.name: len(val)}
    if len(classes) <= MOST_CLASSES:
        counts = zip(classes, _counts(train, classes), _counts(val, classes), strict=True)
        contents["classes"] = {name: f"{a} train, {b} {val.name}" for name, a, b in counts}
    contents["names"] = _digest(name for part in parts for name in part.names)
    contents["labels"] = _digest("\0".join(names) for part in parts for names in part.labels)
    contents["sizes"] = _digest(str(size) for part in parts for size in part.sizes)
    return contents


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say how images differ from those before, in a sentence; "" where that is not known."""
    if not before:
        return ""
    counts = [{k: x for k, x in each.items() if isinstance(x, int)} for each in (before, now)]
    told = []
    if counts[0] != counts[1]:
        were, are = (", ".join(f"{x:,} {k}" for k, x in each.items()) for each in counts)
        told.append(f"there were {were} images and are {are}")
    old, new = (each.get("classes") or {} for each in (before, now))
    told += [f"{name}: {old[name]}, and is gone" for name in old if name not in new and new]
    told += [f"{name}: {new[name]}, and is new" for name in new if name not in old and old]
    told += [f"{x}: {old[x]}, now {new[x]}" for x in old if x in new and old[x] != new[x]]
    if not told:
        told = [text for key, text in ASPECTS.items() if before.get(key) != now.get(key)][:1]
    return f"{listed(told or ['other images are held out'], 4)}."


def _counts(split: Split, classes: Sequence[str]) -> list[int]:
    """How many images of a split each class has."""
    if split.labels.ndim > 1:
        return split.labels.sum(axis=0).tolist()
    known = split.labels[split.labels >= 0]
    return np.bincount(known, minlength=len(classes)).tolist()


def _digest(texts: Iterable[str]) -> str:
    together = "\n".join(texts).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(together, digest_size=8).hexdigest()
