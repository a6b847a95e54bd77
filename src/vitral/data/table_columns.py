"""Say what the columns of a table are: the picture, its labels and its part of a split.

    path,label         one label           path,cat,dog,owl     a column of 0 and 1 for each class
    path,labels        any number          path,label,split     which part a row belongs to
    path,is_valid      the same as yes and no

The columns are known by the names of `names`; a table that has no such name is read where there is
one way to read it, and every choice is said.
"""

from __future__ import annotations

import math
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vitral.data import names, table_labels
from vitral.data.decisions import Decision, Topic
from vitral.data.folders import named_like_an_image
from vitral.data.names import Part
from vitral.data.table_labels import NO, UNKNOWN, YES
from vitral.data.table_text import Cell, Grid, read_grid
from vitral.errors import DataError
from vitral.wording import listed

_FEW = 10  # rows, of which each may have a label of its own
_LOOKED_AT = 50  # rows that tell whether a column names pictures
_TOLD = ("split", "subset", "partition", "usage", "fold", "kfold", "data_split", "phase")
_PIXELS = re.compile(r"(pixels?|px)_?\d*|\d+x\d+", re.IGNORECASE)
_OF_NONE = ("unassigned", "unused", "ignore", "excluded", "exclude", "none", "nan")  # of a split
_BOXES = frozenset(
    {"xmin", "ymin", "xmax", "ymax", "x1", "y1", "x2", "y2", "roix1", "roiy1", "roix2", "roiy2"}
    | {"bboxx1", "bboxy1", "bboxx2", "bboxy2", "bbox", "boundingbox"}
)
_MANY = 64  # columns of numbers, from which they are a picture


@dataclass(slots=True)
class Row:
    """A row of a table.

    Attributes:
        line: its number in the file, from 1.
        name: the path as written, with forward slashes.
        labels: sorted.
        part: of a split; None where the table has none, or the row's cell is empty.
        lacks: what is wrong with it, such as "no label"; "" for a row that can be used.
        owner: what a column of patients or the like says, as "patient_id=7"; "" where none does.
    """

    line: int
    name: str
    labels: tuple[str, ...]
    part: Part | None = None
    lacks: str = ""
    owner: str = ""


@dataclass(slots=True)
class Sheet:
    """The rows of a table and what was chosen to read them.

    Attributes:
        rows: all of them.
        multi_label: whether a picture may have any number of labels.
        parts: those that its rows belong to; empty where it has no split.
        labels_unused: whether it names labels that nobody asked for.
        decisions: what was chosen.
    """

    rows: list[Row] = field(default_factory=list)
    multi_label: bool = False
    parts: tuple[Part, ...] = ()
    labels_unused: bool = False
    decisions: list[Decision] = field(default_factory=list)

    def count(self, part: Part | None) -> int:
        """Counts the rows of a part that have all they need."""
        return sum(row.part == part and not row.lacks for row in self.rows)


@dataclass(slots=True)
class _Reading:
    """A table while its columns are told apart.

    Attributes:
        grid: its cells.
        where: the file, as the user calls it.
        header: the names of the columns; made up where it has none.
        taken: the columns that are used.
        decisions: what was chosen so far.
    """

    grid: Grid
    where: Path
    header: list[str]
    taken: set[int] = field(default_factory=set)
    decisions: list[Decision] = field(default_factory=list)

    def say(self, topic: Topic, sentence: str) -> None:
        """Adds to what was chosen."""
        self.decisions.append(Decision(topic, sentence))

    def text(self, index: int) -> list[str]:
        """The cells of a column as text."""
        cells = self.grid.column(index)
        return [cell if isinstance(cell, str) else "|".join(cell) for cell in cells]

    def others(self) -> list[int]:
        """The columns that are not used yet, without the numbers of the rows."""
        numbers = {"", "unnamed0", "index", "unnamed"}
        return [
            index
            for index, name in enumerate(self.header)
            if index not in self.taken and (not self.grid.header or names.key(name) not in numbers)
        ]


def read_sheet(path: Path, labelled: bool = True, label_column: str = "") -> Sheet:
    """Reads a table; DataError where it has no paths, or no labels though they are asked for."""
    return sheet_of(read_grid(path), path, labelled, label_column)


def sheet_of(grid: Grid, path: Path, labelled: bool = True, label_column: str = "") -> Sheet:
    """Tells the columns of a table apart and reads its rows.

    Args:
        grid: its cells.
        path: of the file, for messages.
        labelled: whether each row has to have a label.
        label_column: the name of the column of the labels; "" where the usual names tell it.
    """
    width = max((len(cells) for _, cells in grid.rows), default=0)
    header = grid.header or [f"column {number}" for number in range(1, width + 1)]
    reading = _Reading(grid, path, header)
    _refuse_pixels(reading)
    path_column = _path_column(reading, labelled)
    reading.taken.add(path_column)
    written = [name.replace("\\", "/") for name in reading.text(path_column)]
    _refuse_addresses(written, path)
    asked = _asked_column(reading, label_column) if labelled and label_column else None
    if asked is not None:
        reading.taken.add(asked)
    parts = _split(reading)
    owners = _owners(reading)
    labels: list[tuple[str, ...]] = [()] * len(written)
    multi_label = False
    may_be_empty = True
    sheet = Sheet(decisions=reading.decisions)
    if labelled:
        labels, multi_label, may_be_empty = _labels(reading, written, asked)
    else:
        sheet.labels_unused = bool(names.positions(header, names.LABEL_COLUMNS))
    parts = parts or _split_by_folder(reading, written, labels)
    sheet.multi_label = multi_label
    for number, (line, cells) in enumerate(grid.rows):
        name = written[number]
        lacks = "" if name else "no path"
        if name and not labels[number] and not may_be_empty:
            lacks = "no label"
        if grid.header and any(cells[len(grid.header) :]):
            lacks = (
                f"{len(cells)} cells, and the first line names {len(grid.header)} columns; put "
                f"quotes around what has a comma in it"
            )
        part = parts[number] if parts else None
        row_name = posixpath.normpath(name) if name else ""
        owner = owners[number] if owners else ""
        sheet.rows.append(Row(line, row_name, labels[number], part, lacks, owner))
    if parts:
        sheet.parts = tuple(part for part in names.PARTS if part in parts)
    return sheet


def split_of(
    columns: Mapping[str, Sequence[str]], where: Path
) -> tuple[list[Part | None], list[Decision]]:
    """Gives the part of each row by columns that say it, and what was chosen.

    No parts where none of the columns says one. Raises DataError for values that are known in part.
    """
    rows: list[tuple[int, list[Cell]]] = []
    for line, cells in enumerate(zip(*columns.values(), strict=True), start=1):
        rows.append((line, list(cells)))
    reading = _Reading(Grid(list(columns), rows), where, list(columns))
    parts = _split(reading)
    return parts, reading.decisions


def _refuse_pixels(reading: _Reading) -> None:
    """Raises DataError for a table whose rows are pictures themselves."""
    header = reading.header
    grid = reading.grid
    pixels = [index for index, name in enumerate(header) if _PIXELS.fullmatch(name.strip())]
    in_a_cell = [i for i in pixels if any(cell.count(" ") >= _MANY for cell in reading.text(i)[:9])]
    if in_a_cell:
        where = f"the column '{header[in_a_cell[0]]}'"
        count = reading.text(in_a_cell[0])[0].count(" ") + 1
    elif len(pixels) >= _MANY:
        where = f"the columns '{header[pixels[0]]}' to '{header[pixels[-1]]}'"
        count = len(pixels)
    elif len(header) > _MANY and grid.rows and _is_numbers(grid.rows[0][1]):
        where = f"its {len(header):,} columns"
        count = len(header) - 1
    else:
        return
    values = "pixels.split()" if in_a_cell else "pixels"
    root = math.isqrt(count)
    side = f"{root}, {root}" if root * root == count else "height, width"
    raise DataError(
        f"{reading.where} holds the pictures themselves, as numbers in {where}: it names no files. "
        f"Vitral reads picture files: write each row as a PNG into a folder of its class, with "
        f"PIL.Image.fromarray(numpy.array({values}, dtype='uint8').reshape({side})).save(path)."
    )


def _is_numbers(cells: Sequence[Cell]) -> bool:
    return all(isinstance(cell, str) and cell.isdecimal() for cell in cells)


def _path_column(reading: _Reading, labelled: bool) -> int:
    """The column of the pictures: the first known name of which the cells look like files."""
    known = names.positions(reading.header, names.PATH_COLUMNS)
    if not reading.grid.header:
        known = []
    looks = [i for i in known if any(map(named_like_an_image, reading.text(i)[:_LOOKED_AT]))]
    if looks or known:
        return (looks or known)[0]
    unnamed = [i for i in range(len(reading.header)) if _names_pictures(reading.text(i))]
    if not unnamed and reading.header[:1] == [""] and reading.grid.header:
        unnamed = [0]  # a header that leaves out the first column: the pictures
    if not unnamed and not reading.grid.header and reading.header:
        unnamed = [0]
    if unnamed:
        if reading.grid.header and reading.header[unnamed[0]]:
            name = reading.header[unnamed[0]]
            reading.say("files", f"Column '{name}' of {reading.where.name} names the pictures.")
        return unnamed[0]
    columns = "columns, path and label (or labels)" if labelled else "column, path"
    raise DataError(
        f"The first line of {reading.where} names the {columns}, not "
        f"'{','.join(reading.grid.header)[:80]}'. Call the column of the pictures path"
        f"{' and that of the labels label' if labelled else ''}."
    )


def _names_pictures(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells[:_LOOKED_AT] if cell]
    return bool(filled) and sum(map(named_like_an_image, filled)) > 0.8 * len(filled)


def _refuse_addresses(written: Sequence[str], path: Path) -> None:
    far = [name for name in written if re.match(r"(https?|s3|gs)://", name)]
    if far and len(far) > len(written) // 2:
        raise DataError(
            f"{path} names pictures on the web, such as {far[0]}; download them first, and write "
            f"their paths in the column."
        )


def _asked_column(reading: _Reading, label_column: str) -> int:
    """The column of labels that was asked for by name."""
    found = names.positions(reading.header, [label_column]) if reading.grid.header else []
    if not found or found[0] in reading.taken:
        why = "names the pictures" if found else "is not there"
        columns = listed(f"'{name}'" for name in reading.grid.header) or "no names"
        raise DataError(
            f"data.label_column={label_column}: that column of {reading.where} {why}; its columns "
            f"have {columns}."
        )
    name = reading.header[found[0]]
    reading.say("labels", f"Column '{name}' of {reading.where.name} is the label, as was asked.")
    return found[0]


def _labels(
    reading: _Reading, written: Sequence[str], asked: int | None
) -> tuple[list[tuple[str, ...]], bool, bool]:
    """(the labels of each row, whether there may be several, whether there may be none)."""
    column = _label_column(reading) if asked is None else asked
    where = reading.where.name
    boxes = [name for name in reading.header if names.key(name) in _BOXES]
    if len(boxes) > 1:
        reading.say(
            "labels",
            f"The boxes of {where} ({listed(boxes)}) are not used: whole pictures are learnt.",
        )
    if column is None:
        own = _class_columns(reading)
        if own:
            reading.taken.update(own)
            classes = {reading.header[index]: reading.text(index) for index in own}
            found = table_labels.of_columns(classes, where)
            reading.decisions += found.decisions
            unread = [reading.header[index] for index in reading.others()]
            if unread:
                reading.say("labels", f"Columns of {where} that are not read: {listed(unread)}.")
            return found.labels, found.multi_label, True
        column = _only_column(reading)
    if column is None:
        return _labels_of_folders(reading, written), False, False
    reading.taken.add(column)
    name = reading.header[column]
    if not any(one.topic == "labels" for one in reading.decisions):
        reading.say("labels", f"The label of an image is column '{name}' of {where}.")
    found = table_labels.of_column(name, reading.grid.column(column), where)
    reading.decisions += found.decisions
    return found.labels, found.multi_label, found.may_be_empty


def _label_column(reading: _Reading) -> int | None:
    """The column of which the name says that it holds labels; a choice of several is said."""
    if not reading.grid.header:
        return None
    known = names.positions(reading.header, names.LABEL_COLUMNS)
    known = [index for index in known if index not in reading.taken]
    if not known:
        return None
    chosen = next((i for i in known[1:] if _names_numbers(reading, known[0], i)), known[0])
    others = [f"'{reading.header[i]}'" for i in known if i != chosen]
    rest = f", not {listed(others)}" if others else ""
    reading.say(
        "labels",
        f"Column '{reading.header[chosen]}' of {reading.where.name} is the label{rest}.",
    )
    return chosen


def _names_numbers(reading: _Reading, numbers: int, words: int) -> bool:
    """Whether a column gives each number of another its name, one to one."""
    pairs = set(zip(reading.text(numbers), reading.text(words), strict=True))
    sides = [{pair[side] for pair in pairs} for side in (0, 1)]
    return (
        len(sides[0]) == len(sides[1]) == len(pairs) > 0
        and all(_is_number(value) for value in sides[0])
        and not any(_is_number(value) or not value for value in sides[1])
    )


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.0+)?", text) is not None


def _class_columns(reading: _Reading) -> list[int]:
    """The columns of 0 and 1, where there are two at least."""
    if not reading.grid.header:
        return []
    found = []
    for index in reading.others():
        values = {cell.casefold() for cell in reading.text(index)}
        if values <= YES | NO | UNKNOWN and values & (YES | NO | {"-1"}):
            found.append(index)
    return found if len(found) > 1 else []


def _only_column(reading: _Reading) -> int | None:
    """The label where no name tells it: the one other column, or the one of words."""
    others = reading.others()
    if not others:
        return None
    where = reading.where.name
    if len(others) > 1 and not reading.grid.header:
        words = [i for i in others if not all(map(_is_number, reading.text(i)))]
        others = words if len(words) == 1 else others
    if len(others) == 1:
        name = reading.header[others[0]]
        own = reading.text(others[0])
        if len(own) > _FEW and len(set(own)) == len(own) and reading.grid.header:
            raise DataError(
                f"{reading.where} has no column of labels: each of its {len(own):,} rows has "
                f"another '{name}'. Write the class of each picture in a column called label."
            )
        reading.say("labels", f"The label is the only other column of {where}, '{name}'.")
        return others[0]
    columns = listed((f"'{reading.header[index]}'" for index in others), 12)
    if not reading.grid.header:
        raise DataError(
            f"{reading.where} has {len(reading.header)} columns and no names for them; write a "
            f"first line that names them, with path and label among them."
        )
    raise DataError(
        f"The first line of {reading.where} names the columns, path and label (or labels), not "
        f"'{','.join(reading.grid.header)[:80]}': which is the label? Call that one label; it has "
        f"{columns}."
    )


def _labels_of_folders(reading: _Reading, written: Sequence[str]) -> list[tuple[str, ...]]:
    """The folder of each picture, where a list has nothing but paths."""
    folders = [posixpath.basename(posixpath.dirname(name)) for name in written]
    if not written or not all(
        folder for folder, name in zip(folders, written, strict=True) if name
    ):
        shown = ",".join(reading.grid.header) or (written[0] if written else "")
        raise DataError(
            f"The first line of {reading.where} names the columns, path and label (or labels), not "
            f"'{shown[:80]}'. Add the label of each picture in a column called label."
        )
    reading.say(
        "labels",
        f"{reading.where.name} has no labels; the label of a picture is the folder it is in, as "
        f"'{folders[0]}' of {written[0]}.",
    )
    return [(unicodedata.normalize("NFC", folder),) if folder else () for folder in folders]


def _owners(reading: _Reading) -> list[str]:
    """Whose picture each row is, by a column beside that of the labels; empty without one."""
    others = reading.others()
    known = names.positions(reading.grid.header, names.OWNER_COLUMNS)
    index = next((index for index in known if index in others), None)
    if index is None or len(others) == 1:
        return []
    reading.taken.add(index)
    name = reading.header[index]
    cells = [cell.strip() for cell in reading.text(index)]
    return [f"{name}={cell}" if cell.casefold() not in UNKNOWN else "" for cell in cells]


def _split(reading: _Reading) -> list[Part | None]:
    """The part of each row by a column that says it; empty where there is none."""
    for index in names.positions(reading.header, names.SPLIT_COLUMNS):
        if index in reading.taken:
            continue
        parts = _named_parts(reading, index)
        if parts:
            return _said(reading, [index], parts)
    flags = _flags(reading)
    if flags:
        return _said(reading, list(flags), _flagged(reading, flags))
    labels = set(names.positions(reading.header, names.LABEL_COLUMNS))
    for index in reading.others():
        values = {cell for cell in reading.text(index) if cell}
        known = {names.part_of(value) for value in values if index not in labels}
        if "train" in known and known & {"val", "test"} and None not in known:
            return _said(reading, [index], [names.part_of(c) for c in reading.text(index)])
    return []


def _named_parts(reading: _Reading, index: int) -> list[Part | None]:
    """The part of each row by a column called split; empty where it holds no such words."""
    cells = reading.text(index)
    values = sorted({cell for cell in cells if cell})
    values = [value for value in values if value.casefold() not in _OF_NONE]
    strange = [value for value in values if names.part_of(value) is None]
    name = reading.header[index]
    if not values or (len(strange) == len(values) and not names.is_one_of(name, _TOLD)):
        return []
    if not strange:
        return [names.part_of(cell) for cell in cells]
    shown = listed(f"'{value}'" for value in strange)
    if len(strange) < len(values):
        raise DataError(
            f"{reading.where} says in its column '{name}' to which part of a split a row belongs, "
            f"but {shown} is none that is known: write train, val or test."
        )
    if set(map(str.casefold, values)) <= YES | NO | UNKNOWN or all(map(_is_number, values)):
        shown = f"numbers ({shown})"
    reading.say(
        "split",
        f"Column '{name}' of {reading.where.name} holds {shown} and not train, val or test: it is "
        f"not used.",
    )
    reading.taken.add(index)
    return []


def _flags(reading: _Reading) -> dict[int, Part]:
    """The columns of yes and no, with the part that each speaks of."""
    labels = names.positions(reading.header, names.LABEL_COLUMNS)
    flags: dict[int, Part] = {}
    for index in reading.others():
        name = names.key(reading.header[index])
        part = names.SPLIT_FLAGS.get(name)
        if part is None and set(labels) - {index}:
            part = names.BARE_SPLIT_FLAGS.get(name)
        values = {cell.casefold() for cell in reading.text(index)}
        if part is not None and values and values <= YES | NO:
            flags[index] = part
    return flags


def _flagged(reading: _Reading, flags: dict[int, Part]) -> list[Part | None]:
    """The part of each row: the one that says yes, otherwise one that is not spoken of."""
    columns = {part: reading.text(index) for index, part in flags.items()}
    other: Part = "val" if "train" in columns and "val" not in columns else "train"
    parts: list[Part | None] = []
    for number in range(len(reading.grid.rows)):
        own = [part for part, cells in columns.items() if cells[number].casefold() in YES]
        parts.append(own[-1] if own else other)
    return parts


def _said(reading: _Reading, columns: Sequence[int], parts: list[Part | None]) -> list[Part | None]:
    reading.taken.update(columns)
    called = listed(f"'{reading.header[index]}'" for index in columns)
    reading.say(
        "split", f"{reading.where.name} has a split in its column {called}: {_told(parts)}."
    )
    return parts


def _told(parts: Sequence[Part | None]) -> str:
    counts = Counter(parts)
    told = [f"{counts[part]:,} rows of {part}" for part in names.PARTS if counts[part]]
    if counts[None]:
        told.append(f"{counts[None]:,} rows of none, which are not used")
    return ", ".join(told)


def _split_by_folder(
    reading: _Reading, written: Sequence[str], labels: Sequence[tuple[str, ...]]
) -> list[Part | None]:
    """The part of each row by the folder that its path begins with: train/a.png, test/b.png."""
    paths = [name.lstrip("/").split("/") for name in written if name]
    for depth in range(min(map(len, paths), default=1) - 1):
        folders = {path[depth] for path in paths}
        known = {names.part_of(folder) for folder in folders}
        if None in known or "train" not in known or not known & {"val", "test"}:
            continue
        if folders == {label for own in labels for label in own}:
            continue  # they are the classes
        parts = [names.part_of(n.lstrip("/").split("/")[depth]) if n else None for n in written]
        reading.say(
            "split",
            f"{reading.where.name} has a split in the folders of its paths: {_told(parts)}.",
        )
        return parts
    return []
