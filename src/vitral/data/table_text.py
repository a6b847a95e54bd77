"""Read the cells of a table: separated values, lists of words, JSON lines and JSON.

    Grid(header, rows)    every row with its line in the file; the header is empty where a list of
                          words has none

Any encoding that says which it is (a byte order mark) is read, otherwise UTF-8. What the columns
mean is none of its business: see table_columns.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitral.data import names
from vitral.data.folders import named_like_an_image
from vitral.errors import DataError

Cell = str | list[str]

SEPARATED = (".csv", ".tsv", ".tab")
LINES = (".jsonl", ".ndjson")
WORDS = (".txt", ".lst", ".list")
SUFFIXES = (*SEPARATED, *LINES, *WORDS, ".json")

_SHOWN = 20  # lines by which the separator of a list of words is found
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(slots=True)
class Grid:
    """The cells of a table.

    Attributes:
        header: the names of the columns, without the blanks around them; empty where there are
            none.
        rows: the number of each row's line, from 1, and its cells; some may be missing at the end.
        is_json: whether the names are keys of JSON, of which each is one on purpose.
    """

    header: list[str] = field(default_factory=list)
    rows: list[tuple[int, list[Cell]]] = field(default_factory=list)
    is_json: bool = False

    def column(self, index: int) -> list[Cell]:
        """Gives the cells of a column, '' where a row has none."""
        return [cells[index] if index < len(cells) else "" for _, cells in self.rows]


def read_grid(path: Path) -> Grid:
    """Reads a table; DataError, with the line, where it is none."""
    text = _decoded(path)
    suffix = path.suffix.lower()
    if suffix in LINES:
        return _of_objects(_json_lines(path, text))
    if suffix == ".json":
        return _of_json(path, text)
    if suffix in WORDS:
        return _of_words(path, text)
    return _separated(path, text)


def read_utf8(path: Path, *, save_as: str, absent: str = "check the path.") -> str:
    """Reads a file that a person wrote for an option; DataError where it is not there or not UTF-8.

    `absent` says what to name instead, `save_as` how to write it.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; {absent}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8; save it as {save_as}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}).") from error


def csv_rows(
    path: Path, text: str, delimiter: str | None = None, *, skip_blanks: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Gives the number of each row's last line, and its cells.

    The delimiter is by default the one of , ; and tab that the first line has most of;
    `skip_blanks` takes the blanks before a cell away. Raises DataError, with the line, for what is
    no CSV.
    """
    delimiter = delimiter or max(",;\t", key=text.partition("\n")[0].count)
    file = io.StringIO(text, newline="")
    reader = csv.reader(file, delimiter=delimiter, skipinitialspace=skip_blanks)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num} is no CSV: {error}.") from None


def _decoded(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}).") from error
    try:
        if data.startswith(_MARKS):
            return data.decode("utf-16")
        if data[:200].count(0) > len(data[:200]) // 3:  # UTF-16 that does not say so
            return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-16-be")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(
            f"{path} is not UTF-8; save it as 'CSV UTF-8' (Excel offers that)."
        ) from None


def _separated(path: Path, text: str) -> Grid:
    first, _, rest = text.partition("\n")
    if first.lower().startswith("sep=") and len(first.strip()) == 5:  # what Excel reads and writes
        return _headed(_cells(path, "\n" + rest, first.strip()[-1]))
    shown = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=shown.count)
    if delimiter not in shown and "|" in shown:
        delimiter = "|"
    return _headed(_cells(path, text, delimiter))


def _cells(path: Path, text: str, delimiter: str) -> list[tuple[int, list[Cell]]]:
    # a blank before a quote is no part of the cell: "a.png", "x, y"
    rows = csv_rows(path, text, delimiter, skip_blanks=delimiter != "\t")
    return [(line, [cell.strip() for cell in cells]) for line, cells in rows]


def _of_words(path: Path, text: str) -> Grid:
    """A list whose lines are separated by anything: 'n01440764/a.JPEG 0'."""
    lines = text.splitlines()
    shown = [line for line in lines if line.strip() and not line.startswith("#")][:_SHOWN]
    for delimiter in ("\t", ",", ";", "|"):
        counts = {line.count(delimiter) for line in shown}
        if len(counts) == 1 and counts != {0}:
            rows = _cells(path, _without_comments(lines), delimiter)
            return _headed([(line, cells) for line, cells in rows if any(cells)], bare=True)
    numbered = [
        (number, line.split())
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.startswith("#")
    ]
    counted = [len(words) for _, words in numbered[:2]]
    if counted[:1] == [1] and counted[1:] > [1] and numbered[0][1][0].isdecimal():
        numbered = numbered[1:]  # CelebA counts its rows first
    lengths = {len(words) for _, words in numbered}
    others = {len(words) for _, words in numbered[1:]}
    lacks_one = others == {len(numbered[0][1]) + 1} if numbered else False
    if len(lengths) > 1 and not lacks_one:  # names with blanks, of the pictures or the labels
        numbered = [(line, _in_two(words)) for line, words in numbered]
    return _headed([(line, list(words)) for line, words in numbered], bare=True)


def _without_comments(lines: Iterable[str]) -> str:
    return "\n".join("" if line.startswith("#") else line for line in lines)


def _in_two(words: list[str]) -> list[str]:
    """A path with blanks and its label, or an identifier and a label with blanks."""
    if len(words) < 3:
        return words
    if _is_picture(" ".join(words[:-1])) and not _is_picture(words[0]):
        return [" ".join(words[:-1]), words[-1]]
    return [words[0], " ".join(words[1:])]


def _headed(lines: list[tuple[int, list[Cell]]], *, bare: bool = False) -> Grid:
    """Takes the first line for the header, unless it is a row: it names a picture.

    A `bare` list has a header only where that names a column that is known.
    """
    while lines and not lines[-1][1]:
        lines.pop()  # empty lines at the end are no rows
    while lines and not lines[0][1]:
        lines.pop(0)
    if not lines:
        return Grid()
    header = [str(cell) for cell in lines[0][1]]
    known = names.positions(header, names.PATH_COLUMNS)
    if not known and _lacks_one(header, lines[1:]):
        return Grid(["", *header], lines[1:])
    if not known and (any(map(_is_picture, header)) or (bare and not _has_label(header))):
        return Grid([], lines)
    return Grid(header, lines[1:])


def _has_label(header: list[str]) -> bool:
    return bool(names.positions(header, names.LABEL_COLUMNS))


def _lacks_one(header: list[str], lines: list[tuple[int, list[Cell]]]) -> bool:
    """Whether a header names every column but that of the pictures, which comes first."""
    lengths = {len(cells) for _, cells in lines if cells}
    filled = any(cells[-1] for _, cells in lines if cells)
    return len(header) > 1 and lengths == {len(header) + 1} and filled


def _is_picture(cell: str) -> bool:
    return named_like_an_image(cell) and len(cell) > 4  # '.png' alone is an ending


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise DataError(f"{path} line {number} is no JSON object, like {{'path': …}}.")
        yield number, entry


def _of_objects(objects: Iterable[tuple[int, dict[str, Any]]]) -> Grid:
    entries = list(objects)
    header = list(dict.fromkeys(name for _, entry in entries for name in entry))
    rows = [(line, [_cell(entry.get(name)) for name in header]) for line, entry in entries]
    return Grid(header, rows, is_json=True)


def _cell(value: Any) -> Cell:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list() if all(isinstance(item, str | int | float) for item in value):
            return [str(item).strip() for item in value]
        case dict() | list():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value).strip()


def _of_json(path: Path, text: str) -> Grid:
    """A list of objects, a table of names and labels, or classes with the pictures of each."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}.") from None
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _of_coco(path, content)
    if isinstance(content, dict) and len(content) == 1:  # {"data": [...]}, {"labels": [[...]]}
        (content,) = content.values()
    if isinstance(content, list) and content and all(isinstance(one, dict) for one in content):
        return _of_objects(enumerate(content, start=1))
    if isinstance(content, list):
        pairs = [one for one in content if isinstance(one, list) and len(one) == 2]
        if content and len(pairs) == len(content):
            return _pairs((str(name), _cell(label)) for name, label in pairs)
    if isinstance(content, dict) and content:
        if all(_is_list_of_names(value) for value in content.values()):  # {"cat": ["a.png", ...]}
            return _pairs((name, label) for label, own in content.items() for name in own)
        return _pairs((name, _cell(label)) for name, label in content.items())
    raise DataError(
        f"{path} is no table; Vitral reads a list of objects with a path and a label, or one "
        f"object of {{'path': 'label'}}."
    )


def _is_list_of_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, str) and (named_like_an_image(one) or "/" in one) for one in value)
    )


def _pairs(pairs: Iterable[tuple[str, Cell]]) -> Grid:
    rows: list[tuple[int, list[Cell]]] = []
    for number, (name, label) in enumerate(pairs, start=1):
        rows.append((number, [name, label]))
    return Grid(["path", "label"], rows, is_json=True)


def _of_coco(path: Path, content: dict[str, Any]) -> Grid:
    """Images, categories and annotations apart, as COCO and iNaturalist have them."""
    try:
        called = {one["id"]: str(one["name"]) for one in content["categories"]}
        files = {one["id"]: str(one["file_name"]) for one in content["images"]}
        labels: dict[Any, list[str]] = {image: [] for image in files}
        for one in content["annotations"]:
            labels[one["image_id"]].append(called[one["category_id"]])
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path} has annotations, but not the images, categories and category_id of COCO "
            f"({error} is missing)."
        ) from None
    single = all(len(set(own)) == 1 for own in labels.values())
    rows: list[tuple[int, list[Cell]]] = []
    for number, image in enumerate(files, start=1):
        own = sorted(set(labels[image]))
        rows.append((number, [files[image], own[0] if single else own]))
    return Grid(["path", "label" if single else "labels"], rows, is_json=True)
