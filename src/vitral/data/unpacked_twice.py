"""Find folders that hold again what lies beside them: archives that were unpacked twice.

    flowers/rose/1.jpg       flowers/rose/1.jpg              flowers/rose/1.jpg
    flowers/flowers/rose/1.jpg   flowers (1)/rose/1.jpg      rose - Copy/1.jpg

A folder is looked into where its name, or the names of the folders in it, are those of its
neighbours; it is a copy where at least half of its pictures lie there too, by name, size and, of
some of them, content. Learnt as a class it would be one that no picture belongs to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vitral.data.folders import is_passed_over, named_like_an_image, visible_folders
from vitral.data.names import key, part_of

_COPY = re.compile(
    r"(\s*\(\d+\)|[\s_-]+\(?(copy|copie|kopie|copia|backup|bak)\)?(\s*\(?\d+\)?)?)+$",
    re.IGNORECASE,
)
_COMPARED = 32  # pictures of which the bytes are compared, spread over all


@dataclass(frozen=True, slots=True)
class Repeated:
    """A folder that holds again what is elsewhere.

    Attributes:
        folder: that one.
        original: where the pictures are as well.
        same, count: how many of its pictures are, and of how many.
    """

    folder: Path
    original: Path
    same: int
    count: int


def repeated(folder: Path) -> list[Repeated]:
    """Lists the folders directly in this one that hold again what it, or one of them, holds."""
    children = visible_folders(folder)
    if len(children) < 2:
        return []
    inner = {child: _classes_of(child) for child in children}
    beside = {key(child.name) for child in children}
    again: dict[Path, Repeated] = {}
    for child in children:
        if inner[child] and 2 * len(inner[child] & beside) > len(inner[child]):
            others = [other for other in children if key(other.name) in inner[child]]
            found = _compared(
                child, folder, [one for one in others if one != child], by_folder=True
            )
            if found is not None:
                again[child] = found
    for alike in _alike([child for child in children if child not in again], inner):
        first, *others = sorted(alike, key=lambda one: (len(one.name), one.name))
        for other in others:
            found = _compared(other, first, [first], by_folder=False)
            if found is not None:
                again.setdefault(other, found)
    return list(again.values())


def _classes_of(folder: Path) -> frozenset[str]:
    """The keys of the folders in a folder without pictures, or in the only one in it, and so on."""
    with os.scandir(folder) as entries:
        inner = []
        for entry in entries:
            if is_passed_over(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                inner.append(entry)
            elif named_like_an_image(entry.name):
                return frozenset()
    below = _classes_of(Path(inner[0].path)) if len(inner) == 1 else frozenset()
    return below or frozenset(key(entry.name) for entry in inner)


def _alike(children: list[Path], inner: dict[Path, frozenset[str]]) -> Iterator[list[Path]]:
    """Folders of one name but for a word such as copy, and those that hold the same folders."""
    by_name: dict[str, list[Path]] = {}
    by_classes: dict[frozenset[str], list[Path]] = {}
    for child in children:
        by_name.setdefault(key(_COPY.sub("", child.name)), []).append(child)
        if len(inner[child]) > 1 and part_of(child.name, alone=False) is None:
            by_classes.setdefault(inner[child], []).append(child)
    yield from (alike for alike in (*by_name.values(), *by_classes.values()) if len(alike) > 1)


def _compared(
    child: Path, original: Path, others: list[Path], *, by_folder: bool
) -> Repeated | None:
    """What of a folder lies in others too; None where that is less than half, or differs.

    `by_folder` says that the others are classes of which the folder holds folders.
    """
    there: dict[tuple[str, str, int], str] = {}
    for other in others:
        for way, path, size in _pictures(other):
            name = way if not by_folder else f"{other.name}/{way}"
            there.setdefault((*_tail(name), size), path)
    own = list(_pictures(child))
    pairs = []
    for way, path, size in own:
        twin = there.get((*_tail(way), size))
        if twin is not None:
            pairs.append((path, twin))
    if not pairs or 2 * len(pairs) < len(own):
        return None
    step = max(1, len(pairs) // _COMPARED)
    if any(_content(one) != _content(other) for one, other in pairs[::step]):
        return None
    return Repeated(child, original, len(pairs), len(own))


def _tail(way: str) -> tuple[str, str]:
    """The name of a picture and of the folder that it is in."""
    above, _, name = way.rpartition("/")
    return key(above.rpartition("/")[2]), name


def _pictures(folder: Path) -> Iterator[tuple[str, str, int]]:
    """The pictures below a folder: the way from it, the path and the size in bytes."""
    for above, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_passed_over(name))
        for name in sorted(files):
            path = Path(above, name)
            if named_like_an_image(name) and not is_passed_over(name) and path.is_file():
                yield path.relative_to(folder).as_posix(), str(path), path.stat().st_size


def _content(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None
