"""Read labels from a CSV file: one image per row, its path relative to the file.

    path,label            one label              path,labels            any number, with | between
    cat/01.jpg,cat                               01.jpg,cat|indoors

The separators ; and tab, and other usual names of the columns, are understood as well. Rows that
cannot be what was meant (no label, no file, two labels for one file, labels that differ in letter
case alone) are each named; `complaints.refuse_rows` stops a training for them.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vitral.data import names
from vitral.data.folders import read_file_header
from vitral.data.sources import DataLayout, Files, Problem, ScanResult, SourceOptions
from vitral.errors import DataError

SUFFIXES = (".csv", ".tsv")

_SEPARATORS = re.compile(r"[|;]")


@dataclass(slots=True)
class _Row:
    """A row that names something.

    Attributes:
        line: its number in the file, from 1.
        name: the path as written, with forward slashes.
        labels: sorted.
    """

    line: int
    name: str
    labels: tuple[str, ...]


@dataclass(slots=True)
class _Sheet:
    """The rows of a file and what is wrong with them."""

    rows: list[_Row] = field(default_factory=list)
    multi_label: bool = False
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file; the images are named relative to its folder.

    Attributes:
        path: of the file.
        labelled: whether each row has to have a label; otherwise the paths are enough.
    """

    path: Path
    labelled: bool = True

    def __str__(self) -> str:
        return str(self.path)

    def scan(self) -> ScanResult:
        """Lists every image that the file names and that can be read.

        Raises DataError where the file is no table with a path and a label.
        """
        root = self.path.parent
        sheet = self._read()
        scanned = ScanResult(Files(str(root), ()), multi_label=sheet.multi_label)
        scanned.problems += sheet.problems
        beside: dict[Path, dict[str, str]] = {}
        for row in _once(sheet.rows, root, scanned.problems):
            place = root / row.name
            if not os.path.isfile(place):  # noqa: PTH113 - Path.is_file raises for a name too long
                reason = f"{self._line(row.line)} names no file{_hint(place, beside)}."
                scanned.problems.append(Problem(row.name, reason, "missing"))
                continue
            try:
                header = read_file_header(place)
                status = place.stat()
            except DataError as error:
                scanned.problems.append(Problem.left_out(row.name, error))
                continue
            scanned.add(row.name, row.labels, status.st_size, header, status.st_mtime_ns)
        named = {label for row in sheet.rows for label in row.labels}
        scanned.empty_classes = sorted(named - set(scanned.classes))
        scanned.problems += _case(sheet.rows, self.path.name)
        scanned.reader = Files(str(root), tuple(scanned.names))
        return scanned

    def _read(self) -> _Sheet:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise DataError(
                f"{self.path} is not UTF-8; save it as 'CSV UTF-8' (Excel offers that)."
            ) from None
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror or error}).") from error
        first, _, _ = text.partition("\n")
        delimiter = max(",;\t", key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            lines = [(reader.line_num, cells) for cells in reader]
        except csv.Error as error:
            raise DataError(f"{self.path} line {reader.line_num} is no CSV: {error}.") from None
        return self._sheet(lines)

    def _sheet(self, lines: list[tuple[int, list[str]]]) -> _Sheet:
        header = [cell.strip().lower() for cell in lines[0][1]] if lines else []
        path = _column(header, names.PATH_COLUMNS)
        label = _column(header, names.LABEL_COLUMNS)
        if path is None or (label is None and self.labelled):
            columns = "columns, path and label (or labels)" if self.labelled else "column, path"
            raise DataError(
                f"The first line of {self.path} names the {columns}, not '{','.join(header)[:80]}'."
            )
        while len(lines) > 1 and not lines[-1][1]:
            lines.pop()  # empty lines at the end are no rows
        sheet = _Sheet()
        if not self.labelled and label is not None:
            sheet.problems.append(Problem.labels_unused(self.path.name))
            label = None
        cells = [(line, _cell(row, path), _cell(row, label)) for line, row in lines[1:]]
        may_be_empty = label is None or header[label] in names.MULTI_LABEL_COLUMNS
        sheet.multi_label = any(_SEPARATORS.search(text) for *_, text in cells) or (
            label is not None and may_be_empty
        )
        for line, name, text in cells:
            label_text = unicodedata.normalize("NFC", text)
            own = _SEPARATORS.split(label_text) if sheet.multi_label else [label_text]
            labels = tuple(sorted({name.strip() for name in own} - {""}))
            if not name or not (labels or may_be_empty):
                reason = f"{self._line(line)} has no {'label' if name else 'path'}."
                sheet.problems.append(Problem(name or self.path.name, reason, "empty-row"))
            else:
                sheet.rows.append(_Row(line, posixpath.normpath(name.replace("\\", "/")), labels))
        return sheet

    def _line(self, number: int) -> str:
        return f"Line {number} of {self.path.name}"


def layout(source: str, options: SourceOptions) -> DataLayout | None:
    """Gives the layout of a CSV file or a folder with train.csv; None for anything else."""
    path = Path(source)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return DataLayout("CSV file", Table(path, options.labelled), None, "val", source)
    if not path.is_dir():
        return None
    lists = {
        child.stem.lower(): child for child in path.iterdir() if child.suffix.lower() == ".csv"
    }
    if "train" not in lists:  # training.csv beside class folders may be the record of a run
        return None
    tables = {name: Table(list_, options.labelled) for name, list_ in lists.items()}
    train, held_out, held_name = names.divided(tables)
    kind = "CSV files" if held_out else "CSV file"
    return DataLayout(kind, train, held_out, held_name, source)


def _column(header: list[str], known: Iterable[str]) -> int | None:
    return next((header.index(name) for name in known if name in header), None)


def _cell(row: list[str], column: int | None) -> str:
    return row[column].strip() if column is not None and column < len(row) else ""


def _once(rows: list[_Row], root: Path, problems: list[Problem]) -> Iterator[_Row]:
    """Each file's first row, in order of the names; files with two labels are left out.

    A file may be named once from the root and once from the folder of the list.
    """
    here = root.absolute().as_posix()
    by_place: dict[str, list[_Row]] = {}
    for row in rows:
        by_place.setdefault(posixpath.normpath(posixpath.join(here, row.name)), []).append(row)
    for same in sorted(by_place.values(), key=lambda rows: rows[0].name):
        name = same[0].name
        lines = ", ".join(str(row.line) for row in same[:5])
        if len({row.labels for row in same}) > 1:
            given = " and ".join(sorted({"|".join(row.labels) for row in same})[:3])
            reason = f"Lines {lines} give it different labels: {given}."
            problems.append(Problem(name, reason, "two-labels"))
            continue
        if len(same) > 1:
            reason = f"Lines {lines} are the same row; it is read once."
            problems.append(Problem(name, reason, "repeated"))
        yield same[0]


def _case(rows: list[_Row], where: str) -> list[Problem]:
    counts = Counter(label for row in rows for label in row.labels)
    spellings: dict[str, list[str]] = {}
    for label in sorted(counts):
        spellings.setdefault(label.casefold(), []).append(label)
    return [
        Problem(
            where,
            "One label or several? "
            + ", ".join(f"'{label}' {counts[label]} times" for label in same)
            + ".",
            "case",
        )
        for same in spellings.values()
        if len(same) > 1
    ]


def _hint(missing: Path, beside: dict[Path, dict[str, str]]) -> str:
    """', but 0012.jpg is there' where a neighbour differs in letter case or Unicode form alone."""
    if missing.parent not in beside:
        children = missing.parent.iterdir() if os.path.isdir(missing.parent) else ()  # noqa: PTH112
        beside[missing.parent] = {_folded(child.name): child.name for child in children}
    twin = beside[missing.parent].get(_folded(missing.name))
    return f", but {twin} is there" if twin and twin != missing.name else ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
