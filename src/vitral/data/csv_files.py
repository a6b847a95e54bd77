"""Read labels from a table: one image per row, its path relative to the file.

    path,label            one label              path,labels            any number, with | between
    cat/01.jpg,cat                               01.jpg,cat|indoors

Other separators, other usual names of the columns, a column for each class, a column that says the
split, JSON and lists of words are understood as well: `table_text` reads the cells,
`table_columns` says what the columns are, `table_paths` finds the files. Rows that cannot be what
was meant (no label, no file, two labels for one file, labels that differ in letter case alone) are
each named; `problems.refuse_rows` stops a training for them.
"""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from vitral.data import names
from vitral.data.decisions import Decision
from vitral.data.folders import named_like_an_image, read_file_header
from vitral.data.names import HeldOutName, Part
from vitral.data.sources import DataLayout, Files, Problem, ScanResult, SourceOptions
from vitral.data.table_columns import Row, Sheet, read_sheet
from vitral.data.table_paths import Located, locate
from vitral.data.table_text import SUFFIXES, WORDS
from vitral.errors import DataError
from vitral.wording import listed


@dataclass(frozen=True, slots=True)
class Table:
    """A table of images; what is not an absolute path is named relative to a folder.

    Attributes:
        path: of the file.
        labelled: whether each row has to have a label; otherwise the paths are enough.
        part: the rows that belong to this part of a split; None for all of them.
        root: the folder that names are relative to; None for that of the file.
        sheet: the rows, where they are read already.
        source: the folder by which the user names them, where that says the split; None for the
            file.
        label_column: the name of the column of the labels; "" where the usual names tell it.
    """

    path: Path
    labelled: bool = True
    part: Part | None = None
    root: Path | None = None
    sheet: Sheet | None = field(default=None, compare=False, repr=False)
    source: str | None = None
    label_column: str = ""

    def __str__(self) -> str:
        called = self.source or str(self.path)
        return called if self.part is None else f"{called}@{self.part}"

    def scan(self) -> ScanResult:
        """Lists every image that the file names and that can be read.

        Raises DataError where the file is no table with a path and a label.
        """
        sheet = self.sheet or read_sheet(self.path, self.labelled, self.label_column)
        root = self.root or self.path.parent
        rows = [row for row in sheet.rows if self.part is None or row.part == self.part]
        scanned = ScanResult(Files(str(root), ()), multi_label=sheet.multi_label)
        scanned.decisions += sheet.decisions
        if sheet.labels_unused:
            scanned.problems.append(Problem.labels_unused(self.path.name))
        scanned.problems += [self._lacking(row) for row in rows if row.lacks]
        rows = [row for row in rows if not row.lacks]
        located = self.locate(row.name for row in rows)
        scanned.decisions += self._found_elsewhere(located, root)
        beside: dict[Path, dict[str, str]] = {}
        for row in _once(rows, located, self.path.parent, scanned.problems):
            if row.name not in located.places:
                problem = self._missing(row, located, beside)
                scanned.problems.append(problem)
                continue
            place = Path(located.places[row.name])
            name = _named(row.name, place, self.path.parent, root)
            try:
                header = read_file_header(place)
                status = place.stat()
            except DataError as error:
                scanned.problems.append(Problem.left_out(name, error))
                continue
            scanned.add(name, row.labels, status.st_size, header, status.st_mtime_ns)
            if row.owner:
                scanned.owners[name] = row.owner
        named = {label for row in rows for label in row.labels}
        scanned.empty_classes = sorted(named - set(scanned.classes))
        scanned.problems += _case(rows, self.path.name)
        scanned.reader = Files(str(root), tuple(scanned.names))
        return scanned

    def locate(self, written: Iterable[str]) -> Located:
        """Finds the files of written paths."""
        part = self.part or names.part_of(self.path.stem, alone=False)
        return locate(written, self.path.parent, self.root, part)

    def _lacking(self, row: Row) -> Problem:
        reason = f"{self._line(row.line)} has {row.lacks}."
        return Problem(row.name or self.path.name, reason, "empty-row")

    def _missing(self, row: Row, located: Located, beside: dict[Path, dict[str, str]]) -> Problem:
        several = located.ambiguous.get(row.name)
        if several:
            shown = listed((os.path.relpath(place, self.path.parent) for place in several), 2)
            reason = f"{self._line(row.line)} could mean {shown}; write its folder, too."
        else:
            hint = _hint(self.path.parent / row.name, beside)
            reason = f"{self._line(row.line)} names no file{hint}."
        return Problem(row.name, reason, "missing")

    def _found_elsewhere(self, located: Located, root: Path) -> Iterator[Decision]:
        if located.example is not None:
            written, place = located.example
            there = os.path.relpath(place, root)
            yield Decision(
                "files",
                f"{self.path.name} names its images otherwise than they are called: '{written}' "
                f"is read as {there}, and {located.count:,} of them are found so.",
            )

    def _line(self, number: int) -> str:
        return f"Line {number} of {self.path.name}"


def divided(table: Table, source: str) -> DataLayout:
    """Gives the layout of one table, whose rows may say to which part of a split they belong."""
    sheet = table.sheet or read_sheet(table.path, table.labelled, table.label_column)
    table = replace(table, sheet=sheet)
    kind = f"{kind_of(table.path)} file"
    if table.part is not None:
        return of_part(table, table.part, source)
    used = {part: replace(table, part=part) for part in sheet.parts if sheet.count(part)}
    if not set(used) & {"train", "val", "test"}:
        return DataLayout(kind, table, None, "val", source)
    held_out = used.get("val") or used.get("test")
    decisions = []
    for part, rows in used.items():
        if rows not in (used.get("train"), held_out):
            decisions.append(unused(f"The {sheet.count(part):,} rows of {part}", str(rows)))
    held_name: HeldOutName = "val" if "val" in used else "test"
    return DataLayout(
        kind, used.get("train"), held_out, held_name, source, decisions=tuple(decisions)
    )


def of_part(table: Table, part: Part, source: str) -> DataLayout:
    """Gives the layout of the rows of one part; DataError where there are none."""
    assert table.sheet is not None
    if part not in table.sheet.parts:
        has = listed(table.sheet.parts) or "no split"
        raise DataError(f"{table.path} has no rows of {part}: it has {has}.")
    kind = f"{kind_of(table.path)} file"
    return DataLayout(kind, replace(table, part=part), None, "val", source)


def asked_part(source: str) -> tuple[str, Part] | None:
    """Takes list.csv@test apart; None for what is no path with a part behind it.

    Raises DataError for a word that is no part of a split.
    """
    name, _, word = source.rpartition("@")
    if Path(source).exists() or not (name and word) or not Path(name).exists():
        return None
    part = names.part_of(word)
    if part is None:
        raise DataError(f"'{word}' is no part of a split; write {name}@train, @val or @test.")
    return name, part


def unused(what: str, source: str) -> Decision:
    """Says that a part of a split is not used, and what it is good for."""
    return Decision(
        "files",
        f"{what} are not used here; the model can be scored on them: vitral evaluate RUN {source}",
    )


def kind_of(path: Path) -> str:
    """Names the kind of a table by its ending: CSV, JSON, text."""
    suffix = path.suffix.lower()
    if suffix in WORDS:
        return "text"
    return "JSON" if "json" in suffix else "CSV"


def layout(source: str, options: SourceOptions) -> DataLayout | None:
    """Gives the layout of a table, or of its rows of one part (list.csv@test); None otherwise."""
    asked = asked_part(source)
    path = Path(source if asked is None else asked[0])
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return None
    part = None if asked is None else asked[1]
    table = Table(path, options.labelled, part, label_column=options.label_column)
    try:
        table = replace(table, sheet=read_sheet(path, options.labelled, options.label_column))
    except DataError:
        if path.suffix.lower() in (*WORDS, ".json"):
            return None  # notes, or the settings of something
        return DataLayout(f"{kind_of(path)} file", table, None, "val", source)  # scan() says why
    if path.suffix.lower() in WORDS and not _names_pictures(table):
        return None
    found = divided(table, source)
    if found.held_out is not None or asked is not None:
        return found
    return replace(found, decisions=(*found.decisions, *_lists_beside(path)))


def _lists_beside(path: Path) -> Iterator[Decision]:
    """Says which lists of other parts stand beside one of training images that is named alone."""
    if names.part_of(path.stem) != "train":
        return
    beside = [
        other.name
        for other in sorted(path.parent.iterdir())
        if other.suffix.lower() in SUFFIXES and names.part_of(other.stem) in ("val", "test")
    ]
    if beside:
        yield Decision(
            "split",
            f"{listed(beside)} beside {path.name} is not used; name the folder, {path.parent}, "
            f"to hold it out.",
        )


def _names_pictures(table: Table) -> bool:
    """Whether the words of a text are names of pictures."""
    assert table.sheet is not None
    written = [row.name for row in table.sheet.rows[:50] if row.name]
    return any(map(named_like_an_image, written)) or bool(table.locate(written).places)


def _named(written: str, place: Path, folder: Path, root: Path) -> str:
    """The name of a picture relative to the root, as it was written where that leads there."""
    if root == folder and place == folder / written:
        return written
    absolute = Path(os.path.abspath(place))  # noqa: PTH100 - links are left as they are
    above = Path(os.path.abspath(root))  # noqa: PTH100
    if Path(written).is_absolute() and place == Path(written):
        return written
    return Path(os.path.relpath(absolute, above)).as_posix()


def _once(
    rows: list[Row], located: Located, folder: Path, problems: list[Problem]
) -> Iterator[Row]:
    """Each file's first row, in order of the names; files with two labels are left out.

    A file may be named once from the root and once from the folder of the list.
    """
    here = folder.absolute().as_posix()
    by_place: dict[str, list[Row]] = {}
    for row in rows:
        place = located.places.get(row.name, row.name)
        by_place.setdefault(posixpath.normpath(posixpath.join(here, place)), []).append(row)
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


def _case(rows: list[Row], where: str) -> list[Problem]:
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
