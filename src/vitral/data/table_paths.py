"""Find the files that a table names.

A path is tried as it is written, from the table's folder. Where most are not there, all pictures
below that folder are listed and matched by their names: an identifier without its extension, a
path from another folder or another machine. One way of reading is looked for that finds most of
them, and it is said; a name that several pictures could be is named as a problem.
"""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vitral.data import names
from vitral.data.folders import is_passed_over, named_like_an_image
from vitral.data.names import Part

# Folders that hold lists and not the pictures, which then stand beside them.
_OF_LISTS = frozenset(
    {"meta", "metadata", "info", "annotation", "annotations", "annos", "anno", "labels", "label"}
    | {"split", "splits", "list", "lists", "csv", "csvs", "table", "tables", "docs", "devkit"}
    | {"imagesets", "main", "eval", "ground_truth", "groundtruth"}
)
_LEVELS_UP = 2
_PREFERRED = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # of two copies of a picture


class _Candidate(NamedTuple):
    """A picture that a written path may mean.

    Attributes:
        dropped: how many of its folders have to be left out.
        suffix: the picture's, in lower case.
        place: its path.
        is_of_part: whether a folder above it is called like the table's part of a split.
    """

    dropped: int
    suffix: str
    place: str
    is_of_part: bool


@dataclass(frozen=True, slots=True)
class Located:
    """Tells where the pictures of a table are.

    Attributes:
        places: the path of each written one that was found.
        ambiguous: the pictures that a written path could mean, where there are several.
        example: a written path and where it was found, where that is another; None if none is.
        count: how many were found so.
    """

    places: Mapping[str, str]
    ambiguous: Mapping[str, Sequence[str]]
    example: tuple[str, str] | None = None
    count: int = 0


def locate(
    written: Iterable[str], folder: Path, root: Path | None = None, part: Part | None = None
) -> Located:
    """Finds the files of written paths, which use forward slashes.

    Args:
        written: the paths.
        folder: of the table.
        root: of the source, which is searched too.
        part: of a split that the table belongs to; of several pictures those below a folder of
            this name are meant.
    """
    wanted = list(dict.fromkeys(written))
    here = {name: str(folder / name) for name in wanted if _is_file(folder / name)}
    if 2 * len(here) >= len(wanted):
        return Located(here, {})
    for place in _roots(folder, root):
        found, ambiguous = _matched(wanted, place, part)
        if len(found) + len(ambiguous) > len(here):
            others = {name: place for name, place in found.items() if name not in here}
            example = next(((name, others[name]) for name in wanted if name in others), None)
            left = {name: own for name, own in ambiguous.items() if name not in here}
            return Located(others | here, left, example, len(others))
    return Located(here, {})


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for a name too long


def _roots(folder: Path, root: Path | None) -> Iterator[Path]:
    """The folders to search, the table's own first."""
    yield folder
    if root is not None and root != folder:
        yield root
        return
    path = folder.absolute()
    for _ in range(_LEVELS_UP):
        if path.name.casefold() not in _OF_LISTS:
            return
        path = path.parent
        if path in (Path.home(), Path(path.anchor)):
            return
        yield path


def _matched(
    wanted: Sequence[str], root: Path, part: Part | None
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """(the picture of each written path, those of which several may be meant)."""
    by_name, by_stem = _pictures(root)
    candidates: dict[str, list[_Candidate]] = {}
    for name in wanted:
        last = posixpath.basename(name)
        stem = posixpath.splitext(last)[0] if named_like_an_image(last) else last
        called_so = by_name.get(last) or by_stem.get(stem, [])
        ways = (_candidate(name, place, root, part) for place in called_so)
        near = [one for one in ways if one is not None]
        if near:
            fewest = min(one.dropped for one in near)
            candidates[name] = [one for one in near if one.dropped == fewest]
    if not candidates:
        return {}, {}
    found: dict[str, str] = {}
    ambiguous: dict[str, list[str]] = {}
    usual = Counter(own[0].dropped for own in candidates.values()).most_common(1)[0][0]
    for name, own in candidates.items():
        # a path of which more has to be left out than of the others names a file that is not there
        chosen = [one for one in own if one.dropped <= usual]
        chosen = [one for one in chosen if one.is_of_part] or chosen
        ranks = [_rank(one.suffix) for one in chosen]
        chosen = [one for one in chosen if _rank(one.suffix) == min(ranks)]
        if len(chosen) == 1:
            found[name] = chosen[0].place
        elif chosen:
            ambiguous[name] = sorted(one.place for one in chosen)
    return found, ambiguous


def _rank(suffix: str) -> int:
    return _PREFERRED.index(suffix) if suffix in _PREFERRED else len(_PREFERRED)


def _candidate(name: str, place: str, root: Path, part: Part | None) -> _Candidate | None:
    """How a picture could be what was written; None where their folders belong to other splits."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    found = Path(place).relative_to(root).parts
    same = 1
    while same < min(len(parts), len(found)) and parts[-same - 1] == found[-same - 1]:
        same += 1
    dropped = parts[:-same]
    before = found[:-same]
    there = {names.part_of(word) for word in before} - {None}
    spoken = {names.part_of(word) for word in dropped} - {None}
    if spoken and there and not spoken & there:
        return None
    suffix = posixpath.splitext(place)[1].lower()
    return _Candidate(len(dropped), suffix, place, part in there)


def _pictures(root: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Every file below a folder that is called like a picture, by its name and by its stem."""
    by_name: dict[str, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    seen: set[tuple[int, int]] = set()
    for above, folders, files in os.walk(root, followlinks=True):
        status = Path(above).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(folder for folder in folders if not is_passed_over(folder))
        for file in sorted(files):
            if named_like_an_image(file) and not is_passed_over(file):
                place = os.path.join(above, file)  # noqa: PTH118 - for every file of the folder
                by_name.setdefault(file, []).append(place)
                by_stem.setdefault(posixpath.splitext(file)[0], []).append(place)
    return by_name, by_stem
