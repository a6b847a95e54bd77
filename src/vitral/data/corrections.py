"""Corrections of labels, `--labels relabel.csv`: applied while reading, the user's files untouched.

    path,label                 the label that is right; several with | between where images have any
    cat/12.jpg,dog
    cat/13.jpg,                nothing said: the picture keeps its label
    cat/14.jpg,remove          left out
    /pool/new.jpg,dog          a picture that is not among the data: added to the training images

Label Studio's export (.json, also JSON-MIN) says the same; `read` understands both.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vitral.data import label_studio
from vitral.data.decisions import Decision
from vitral.data.folders import read_file_header
from vitral.data.names import PATH_COLUMNS
from vitral.data.problems import existing
from vitral.data.sources import Files, Reader, ScanResult, Split
from vitral.data.table_text import csv_rows, read_utf8
from vitral.errors import DataError
from vitral.wording import closest, did_you_mean, listed

REMOVE = "remove"
COLUMNS = ("path", "given", "suggested", "score", "reason", "label")


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """A row that says what a picture is.

    Attributes:
        where: the row, in words, for messages.
        path: of the picture: relative to the data, or absolute.
        labels: the right ones; none where the picture is to be left out.
    """

    where: str
    path: str
    labels: tuple[str, ...]


def read(path: str | Path) -> list[Correction]:
    """Reads the rows that say something; rows with an empty label do not.

    Raises DataError for a file that cannot be read as corrections, and for a picture of two rows.
    """
    path = Path(path)
    rows = label_studio.read(path) if path.suffix.lower() == ".json" else _rows(path)
    corrections: dict[str, Correction] = {}
    for where, name, text in rows:
        if not text.strip():
            continue
        key = posixpath.normpath(unicodedata.normalize("NFC", name.replace("\\", "/")))
        if key in corrections:
            raise DataError(
                f"{path}: {corrections[key].where} and {where} both say what {name} is; keep one."
            )
        names = {unicodedata.normalize("NFC", part).strip() for part in text.split("|")} - {""}
        removed = names == {REMOVE}
        labels = () if removed else tuple(sorted(names))
        corrections[key] = Correction(where=where, path=key, labels=labels)
    return list(corrections.values())


def _rows(path: Path) -> list[tuple[str, str, str]]:
    """(the row in words, the path, the label) of every row of a table."""
    text = read_utf8(existing(str(path), ()), save_as="'CSV UTF-8'")
    rows = []
    columns: tuple[int, int] | None = None
    for line, cells in csv_rows(path, text):
        if columns is None:
            columns = _columns(cells, path)
        elif any(cell.strip() for cell in cells):
            place, label = columns
            if len(cells) <= max(columns) or not cells[place].strip():
                raise DataError(f"{path} line {line} needs a path and a label.")
            rows.append((f"line {line}", cells[place].strip(), cells[label]))
    if columns is None:
        raise DataError(f"{path} is empty; its first line names the columns path and label.")
    return rows


def _columns(header: Sequence[str], path: Path) -> tuple[int, int]:
    names = [cell.strip().lower() for cell in header]
    place = next((names.index(name) for name in PATH_COLUMNS if name in names), None)
    if place is None or "label" not in names:
        raise DataError(
            f"The first line of {path} names the columns path and label, not "
            f"'{','.join(names)[:80]}'."
        )
    return place, names.index("label")


def apply(
    parts: list[ScanResult], root: Path, file: str, *, whole: bool, classes: Sequence[str] = ()
) -> list[ScanResult]:
    """Corrects the labels of the parts of a source; pictures beside it join the first part.

    Args:
        parts: training images, then those held out, or one of the two.
        root: of the source, to which paths are relative.
        file: of the corrections.
        whole: whether these are all parts of the source, so that other rows are mistakes.
        classes: names that are known beside those of the images.

    Raises DataError for rows that name no picture and classes that nobody knows.
    """
    rows = read(file)
    known = sorted({name for part in parts for name in part.classes} | set(classes))
    for row in rows:
        for name in row.labels:
            if known and name not in known:
                raise DataError(
                    f"{file} {row.where}: there is no class '{name}'; "
                    f"{did_you_mean(name, known, f'the data has {listed(known)}.')} To leave the "
                    f"picture out write {REMOVE}."
                )
        if len(row.labels) > 1 and not any(part.multi_label for part in parts):
            raise DataError(f"{file} {row.where}: an image of this data has one label.")
    by_name = {_key(row.path, root): row for row in rows}
    used: set[str] = set()
    corrected = [_corrected(part, by_name, used) for part in parts]
    others = [row for name, row in by_name.items() if name not in used]
    added = [row for row in others if row.labels and _place(row, file).is_file()]
    lost = [row for row in others if row not in added]
    if not whole:  # the other parts have pictures, too
        lost = [row for row in lost if not (root / row.path).is_file()]
    if lost:
        names = [name for part in parts for name in part.names]
        raise DataError(_unknown(lost[0], len(lost), names, file))
    if added and whole:
        corrected[0] = _with_files(corrected[0], [(_place(row, file), row) for row in added])
    removed = sum(not by_name[name].labels for name in used)
    sentence = (
        f"{file} says what {len(used) - removed:,} pictures are, leaves {removed:,} out and adds "
        f"{len(added) if whole else 0:,}."
    )
    corrected[0].decisions = [*corrected[0].decisions, Decision("labels", sentence)]
    return corrected


def apply_to_split(split: Split, classes: Sequence[str], root: Path, file: str) -> Split:
    """Corrects a split that was made before: the images that a training held out.

    Rows of other pictures say nothing here. Raises DataError for files that are nowhere and for
    classes that nobody knows.
    """
    by_name = {_key(row.path, root): row for row in read(file)}
    names = [unicodedata.normalize("NFC", split.key(index)) for index in range(len(split))]
    others = [row for name, row in by_name.items() if name not in set(names)]
    lost = [
        row for row in others if not (root / row.path).is_file() and not _place(row, file).is_file()
    ]
    if lost:
        raise DataError(_unknown(lost[0], len(lost), names, file))
    labels = split.labels.copy()
    kept = []
    for index in range(len(split)):
        row = by_name.get(names[index])
        if row is None or row.labels:
            kept.append(index)
        if row is None or not row.labels:
            continue
        for name in row.labels:
            if name not in classes:
                raise DataError(
                    f"{file} {row.where}: the model has no class '{name}'; "
                    f"{did_you_mean(name, classes, f'it knows {listed(classes)}.')}"
                )
        numbers = [list(classes).index(name) for name in row.labels]
        if labels.ndim > 1:
            labels[index] = False
            labels[index, numbers] = True
        else:
            labels[index] = numbers[0]
    return replace(split, labels=labels).select(kept)


def _key(path: str, root: Path) -> str:
    """The path as the source names it, where it is absolute and lies below the source."""
    base = root.absolute().as_posix().rstrip("/") + "/"
    return path.removeprefix(base)


def _place(row: Correction, file: str) -> Path:
    """The place of a picture that is none of the data: absolute, or beside the corrections."""
    return Path(file).absolute().parent / row.path


def _corrected(part: ScanResult, rows: dict[str, Correction], used: set[str]) -> ScanResult:
    labels = list(part.labels)
    removed = set()
    for index, name in enumerate(part.names):
        row = rows.get(unicodedata.normalize("NFC", name))
        if row is None:
            continue
        used.add(unicodedata.normalize("NFC", name))
        if row.labels:
            labels[index] = row.labels
        else:
            removed.add(index)
    return replace(part, labels=labels).without(removed)


def _unknown(row: Correction, count: int, names: Sequence[str], file: str) -> str:
    near = closest(row.path, names)
    hint = f"did you mean {near}?" if near else f"they are called like {names[0]}."
    more = f" (and {count - 1:,} more rows)" if count > 1 else ""
    return f"{file} {row.where} names {row.path}, which is no picture of the data{more}; {hint}"


@dataclass(frozen=True, slots=True)
class _Joined:
    """The samples of two readers, one after the other."""

    first: Reader
    count: int
    second: Reader

    def read(self, row: int) -> bytes | np.ndarray:
        return self.first.read(row) if row < self.count else self.second.read(row - self.count)

    def key(self, row: int) -> str:
        return self.first.key(row) if row < self.count else self.second.key(row - self.count)


def _with_files(part: ScanResult, rows: list[tuple[Path, Correction]]) -> ScanResult:
    """The part with pictures from elsewhere, by their whole paths."""
    count = len(part.names)
    joined = replace(
        part,
        names=list(part.names),
        labels=list(part.labels),
        sizes=list(part.sizes),
        stamps=list(part.stamps),
        headers=list(part.headers),
    )
    names = []
    for path, row in rows:
        header = read_file_header(path)
        status = path.stat()
        names.append(str(path))
        joined.add(str(path), row.labels, status.st_size, header, status.st_mtime_ns)
    joined.reader = _Joined(part.reader, count, Files("", tuple(names)))
    if joined.shards is not None:
        joined.shards = np.append(joined.shards, np.full(len(names), joined.shards.max() + 1))
    return joined
