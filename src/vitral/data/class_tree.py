"""Read the groups of classes from a table beside the images, or from any file of that kind.

class,parent
robin,bird
sparrow,bird
bird,animal         groups may have groups; the topmost have an empty parent, or no line
"""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vitral.data.decisions import Decision, in_order
from vitral.data.sources import Dataset, ScanResult, SourceOptions
from vitral.data.table_text import csv_rows
from vitral.errors import DataError, SpecError
from vitral.specs.tree import ClassTree
from vitral.wording import closest, listed

FILE = "classes.csv"
COLUMNS = ("class", "parent")


def beside(source: str) -> Path | None:
    """Find classes.csv in the folder of the images, or beside the list that names them.

    A file of this name with other columns is another one's and is none.
    """
    path = Path(source.removeprefix("file://"))
    file = path / FILE if path.is_dir() else path.parent / FILE
    if not path.exists() or not file.is_file() or file == path:
        return None
    try:
        header = next(csv.reader(io.StringIO(_first_line(file))), [])
    except csv.Error:
        return None
    return file if set(COLUMNS) <= {cell.strip().lower() for cell in header} else None


def read(path: str | os.PathLike[str]) -> ClassTree:
    """Read a table of classes and their groups.

    Raises DataError, with the line, for a file that is none, a class with two groups, and a circle.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(
            f"{file} is not UTF-8; save it as 'CSV UTF-8' (Excel offers that)."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file}, the tree of the classes, cannot be read ({reason}).") from None
    rows = [(line, row) for line, row in csv_rows(file, text) if any(map(str.strip, row))]
    header = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    if not set(COLUMNS) <= set(header):
        raise DataError(
            f"The first line of {file} names the columns class and parent, not "
            f"'{','.join(header)[:80]}'. Each line after it gives a class and the group above it."
        )
    places = [header.index(column) for column in COLUMNS]
    parents: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, row in rows[1:]:
        name, parent = (_text(row[place] if place < len(row) else "") for place in places)
        if not name:
            raise DataError(f"{file} line {line} names a parent '{parent}' and no class.")
        if name in lines and parents.get(name, "") != parent:
            raise DataError(
                f"{file} gives '{name}' two parents, '{parents.get(name, '')}' in line "
                f"{lines[name]} and '{parent}' in line {line}; a class has one. Remove one line."
            )
        lines[name] = line
        if parent:
            parents[name] = parent
    try:
        return ClassTree(parents=parents)
    except SpecError as error:
        raise DataError(f"{file}: {error} Remove one of these lines.") from None


def refuse(options: SourceOptions, source: str) -> None:
    """Raise DataError for a tree that cannot be read, before any image is looked at."""
    if options.tree not in (None, "folders", "none"):
        read(options.tree)
    elif options.tree is None and options.labelled and (file := beside(source)):
        read(file)


def grouped(data: Dataset, options: SourceOptions, scanned: ScanResult) -> Dataset:
    """Add the groups of its classes to a data set, and say what was chosen.

    Raises DataError for a tree that was asked for and fits nothing that is there.
    """
    tree, decisions = _chosen(options, scanned, data.source, data.classes)
    return replace(data, tree=tree, decisions=in_order([*data.decisions, *decisions]))


def _chosen(
    options: SourceOptions, scanned: ScanResult, source: str, classes: Sequence[str]
) -> tuple[ClassTree | None, list[Decision]]:
    asked = options.tree
    if asked == "none":
        return None, []
    found = None if asked is not None else beside(source)
    if asked is None and found is None:
        return None, []
    where = "The folders within folders" if options.nested else str(found or asked)
    if scanned.multi_label or not scanned.labelled:
        why = "have several labels each" if scanned.multi_label else "are used without labels"
        if asked is not None:
            raise DataError(
                f"The images of {source} {why}, and a tree groups classes that exclude each other. "
                f"Leave --tree out."
            )
        return None, [Decision("classes", f"{where} is not used: the images {why}.")]
    if options.nested and not (scanned.tree and scanned.tree.parents):
        raise DataError(
            f"No class folder of {source} lies within another folder, so --tree folders has no "
            f"groups; leave it out, or name a table of class,parent: --tree FILE."
        )
    tree = scanned.tree if options.nested else read(found or asked or "")
    kept, decision = of_classes(tree or ClassTree(), classes, where)
    return kept, [decision]


def of_classes(tree: ClassTree, classes: Sequence[str], where: str) -> tuple[ClassTree, Decision]:
    """Keep what a tree says of these classes, and say what it makes of them.

    Raises DataError where it groups none of them.
    """
    kept = tree.of(classes)
    groups = kept.groups(classes)
    strange = sorted({*tree.parents} - {*tree.parents.values()} - {*classes})
    if not groups:
        raise DataError(
            f"{where} has a group for none of the {len(classes)} classes ({listed(classes, 3)}); "
            f"it names {listed(strange, 3) or 'none'}. Write the classes as they are called."
        )
    alone = [name for name in classes if name not in kept.parents and name not in groups]
    sentence = f"{where} puts {len(classes)} classes into {len(groups)} groups: {listed(groups, 5)}"
    if alone:
        near = closest(alone[0], strange)
        hint = f" (it has '{near}': is that '{alone[0]}'?)" if near else ""
        sentence += f"; {len(alone)} in no group: {listed(alone, 3)}{hint}"
    if strange:
        sentence += f"; {len(strange)} that it names are not there: {listed(strange, 3)}"
    return kept, Decision("classes", sentence + ".")


def _text(cell: str) -> str:
    """A name as class folders and tables give it."""
    return unicodedata.normalize("NFC", cell.strip())


def _first_line(file: Path) -> str:
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as opened:
            return opened.readline(10_000).replace(";", ",").replace("\t", ",")
    except OSError:
        return ""
