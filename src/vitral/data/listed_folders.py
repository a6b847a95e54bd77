"""Read a folder in which tables say the labels: lists of its parts, or one for everything.

    train.csv val.csv        train/_classes.csv valid/_classes.csv        metadata.jsonl
    labels.csv train/        train/metadata.csv validation/metadata.csv   train/CLASS/ val/notes.txt

A list called train is taken where it can be read and its pictures are there. Any other table is
taken where there are no class folders, or where it speaks of most of the pictures in them with
other labels. What is not taken is said.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from vitral.data import csv_files, folder_splits, names, published, tar_shards
from vitral.data.csv_files import Table
from vitral.data.decisions import Decision
from vitral.data.folder_splits import has_labels, holds, inside, unwrapped
from vitral.data.folders import (
    is_passed_over,
    named_like_an_image,
    relative,
    visible_folders,
)
from vitral.data.names import HeldOutName, Part
from vitral.data.sources import DataLayout, SourceOptions, SplitSource
from vitral.data.table_columns import Row, read_sheet
from vitral.data.table_text import LINES, SEPARATED, SUFFIXES, WORDS, read_grid
from vitral.data.unpacked_twice import Repeated
from vitral.errors import DataError
from vitral.wording import listed

_SAMPLE = 200  # rows by which it is seen whether a table's pictures are there
_LABELLED = ("metadata", "classes", "labels", "annotations", "annotation", "label")


@dataclass(slots=True)
class _Tables:
    """The tables of a folder that can be read, and why others cannot.

    Attributes:
        usable: those with paths, labels and rows.
        refused: (file, reason).
    """

    usable: list[Table] = field(default_factory=list)
    refused: list[tuple[Path, str]] = field(default_factory=list)


def layout(source: str, options: SourceOptions) -> DataLayout | None:
    """Gives the layout of a folder with tables that are used; None where there are none."""
    root = Path(source)
    if (asked := csv_files.asked_part(source)) is not None:
        return _of_asked(*asked, source, options)
    if not root.is_dir():
        return None
    if options.nested:  # the folders are the tree of the classes
        return None
    if options.labelled and not options.label_column and (known := published.layout(source)):
        return known
    files = _lists(root)
    if not options.labelled:
        return _plain_lists(files, source)
    children = visible_folders(root)
    if not files and len(children) == 1:  # what an archive was unpacked into
        found = layout(str(children[0]), options)
        return None if found is None else replace(found, root=source)
    for child in children:  # of lists: meta/train.txt, GroundTruth/labels.csv
        if names.part_of(child.name) is None and not holds(child):
            files += _lists(child)
    tables = _read(files, root, options.label_column)
    return (
        _of_lists(tables, source)
        or _of_parts(root, source, options)
        or _of_held_out(tables, source, options)
        or _of_one(tables, source, options)
        or _of_folders(tables, source, options)
    )


def _of_asked(folder: str, part: Part, source: str, options: SourceOptions) -> DataLayout:
    """One part of the split of a folder, of whatever kind it is: photos@test."""
    whole = layout(folder, options) or folder_splits.layout(folder, options)
    if whole is not None:
        for table in (whole.train, whole.held_out):
            if isinstance(table, Table) and table.sheet is not None and table.sheet.parts:
                return csv_files.of_part(table, part, source)
        place = {"train": whole.train, whole.held_name: whole.held_out}.get(part)
        if place is not None and whole.held_out is not None:
            return DataLayout(whole.kind, place, None, "val", source, decisions=whole.decisions)
    raise DataError(f"{folder} has no split with a part {part}; name the folder of its images.")


def _lists(folder: Path) -> list[Path]:
    """Files directly in a folder that may be tables, the plainest names first."""
    found = []
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        words = names.words_of(path.stem)
        if is_passed_over(path.name) or suffix not in SUFFIXES or not path.is_file():
            continue
        # what an answer to a competition looks like, names of classes, what Vitral wrote
        if "submission" in words or path.stem.casefold() in _OTHERS:
            continue
        if suffix in (*WORDS, ".json") and not (set(words) & _TELLING):
            continue  # a note or some settings
        found.append(path)
    return sorted(found, key=lambda path: (path.stem.casefold() not in names.TRAIN, _order(path)))


_OTHERS = ("classes", "class_names", "relabel", "predictions", "problems", "evaluation")
_TELLING = frozenset({*names.TRAIN, *names.HELD_OUT, *_LABELLED, "list", "trainval", "attr", "dev"})


def _order(path: Path) -> tuple[int, str]:
    kinds = (SEPARATED, LINES, (".json",), WORDS)
    suffix = path.suffix.lower()
    return next(number for number, kind in enumerate(kinds) if suffix in kind), path.name


def _part(path: Path) -> Part | None:
    return names.part_of(path.stem, alone=False)


def _plain_lists(files: Iterable[Path], source: str) -> DataLayout | None:
    """Lists of paths called train and val, where no labels are asked for."""
    tables = {path.stem: Table(path, labelled=False) for path in files if names.part_of(path.stem)}
    train, held_out, held_name = names.divided(tables)
    if train is None:
        return None
    kind = "CSV files" if held_out else "CSV file"
    return DataLayout(kind, train, held_out, held_name, source)


def _read(files: Iterable[Path], root: Path, label_column: str) -> _Tables:
    tables = _Tables()
    for path in files:
        try:
            sheet = read_sheet(path, label_column=label_column)
        except DataError as error:
            tables.refused.append((path, str(error)))
            continue
        if not any(row.labels for row in sheet.rows):
            tables.refused.append((path, f"{path} has no row with a label."))
        else:
            tables.usable.append(Table(path, root=root, sheet=sheet, label_column=label_column))
    return tables


def _is_there(table: Table) -> bool:
    """Whether most pictures that a table names can be found, by some of its rows."""
    rows = _some_rows(table)
    located = table.locate(row.name for row in rows)
    return 2 * len(located.places) >= len({row.name for row in rows}) > 0


def _some_rows(table: Table) -> list[Row]:
    assert table.sheet is not None
    rows = [row for row in table.sheet.rows if row.name]
    return rows[:: max(1, len(rows) // _SAMPLE)]


def _of_lists(tables: _Tables, source: str) -> DataLayout | None:
    """A list for the images to train on, and one for the others where there is one."""
    root = Path(source)
    by_part: dict[Part, list[Table]] = {}
    for table in tables.usable:
        part = _part(table.path)
        if part is not None:
            by_part.setdefault(part, []).append(table)
    if "train" not in by_part or not _is_there(by_part["train"][0]):
        return None
    train = by_part["train"][0]
    assert train.sheet is not None
    own = csv_files.divided(train, source)
    about = names.without_part(train.path.stem)  # variant_train.txt goes with variant_val.txt
    used = {}
    for part, found in by_part.items():
        found.sort(key=lambda table: names.without_part(table.path.stem) != about)
        if _is_there(found[0]):
            used[part] = found[0]
    held_out = used.get("val") or used.get("test")
    said = [*_unlabelled(tables, root)]
    if held_out is None or own.held_out is not None:
        rest = [table.path for table in tables.usable if table != train]
        return replace(own, decisions=(*own.decisions, *_passed_over(rest, root), *said))
    if "val" in used and "test" in used:
        said.append(csv_files.unused(f"The rows of {used['test'].path.name}", str(used["test"])))
    rest = [t.path for t in tables.usable if t not in (train, held_out, used.get("test"))]
    said += _passed_over(rest, root)
    held_name: HeldOutName = "val" if "val" in used else "test"
    kind = f"{csv_files.kind_of(train.path)} files"
    return DataLayout(kind, train, held_out, held_name, source, decisions=tuple(said))


def _of_parts(root: Path, source: str, options: SourceOptions) -> DataLayout | None:
    """A table in each part of a split, or in some of them and class folders in others."""
    spoken = {c: names.part_of(c.name, alone=False) for c in visible_folders(root)}
    children = sorted(
        (child for child, part in spoken.items() if part is not None),
        key=lambda child: child.name.casefold() not in (*names.TRAIN, *names.HELD_OUT),
    )
    learnt = next((child for child in children if spoken[child] == "train"), root)
    sources: dict[Part, SplitSource] = {}
    said: list[Decision] = []
    used = []
    for child in children:
        inner = unwrapped(child)
        tables = _read(_lists(child), root, options.label_column)
        there = [table for table in tables.usable if _is_there(table)]
        part = spoken[child]
        assert part is not None
        if part in sources:
            continue
        if there:
            sources[part] = there[0]
            used.append(there[0].path)
        elif inside(inner) == "classes" and (child == learnt or has_labels(inner, learnt)):
            again: list[Repeated] = []
            sources[part] = folder_splits.class_folders(inner, root, again)
            said += (folder_splits.said_of(one, root) for one in again)
        elif inside(inner) != "nothing":
            said.append(folder_splits.without_labels(child, root))
    held_out = sources.get("val", sources.get("test"))
    if not used or "train" not in sources:
        return None
    called = listed(relative(path, root) for path in used)
    said.append(Decision("labels", f"The labels are those of {called}."))
    for part, one in sources.items():
        if one not in (sources["train"], held_out):
            said.append(csv_files.unused(f"The images of {part}", str(one)))
    held_name: HeldOutName = "test" if "test" in sources and "val" not in sources else "val"
    kind = "folders with tables"
    return DataLayout(kind, sources["train"], held_out, held_name, source, decisions=tuple(said))


def _of_held_out(tables: _Tables, source: str, options: SourceOptions) -> DataLayout | None:
    """Class folders to train on, and a list of the others: Train/CLASS/, Test/ and Test.csv."""
    root = Path(source)
    split = folder_splits.find(folder_splits.descended(root))
    layout = folder_splits.layout(source, options)
    if split.train is None or split.held_out is not None or layout is None:
        return None
    classes = {child.name for child in visible_folders(split.train)}
    lists: dict[str, Table] = {}
    for table in tables.usable:
        rows = _some_rows(table)
        known = sum(set(row.labels) <= classes for row in rows)
        if _part(table.path) in ("val", "test") and 2 * known >= len(rows) and _is_there(table):
            lists.setdefault(_part(table.path) or "", table)
    held_out = lists.get("val", lists.get("test"))
    if held_out is None:
        return None
    part = _part(held_out.path)
    held_name: HeldOutName = "val" if part == "val" else "test"
    own = [folder for folder in split.unlabelled if names.part_of(folder.name, alone=False) == part]
    contrary = [folder_splits.without_labels(folder, root) for folder in own]
    name = held_out.path.name
    said = [one for one in layout.decisions if one not in contrary]
    said.append(Decision("labels", f"The labels of the held-out images are those of {name}."))
    return replace(layout, held_out=held_out, held_name=held_name, decisions=tuple(said))


def _of_one(tables: _Tables, source: str, options: SourceOptions) -> DataLayout | None:
    """A table for everything, unless class folders say no less."""
    root = Path(source)
    there = [table for table in tables.usable if _is_there(table)]
    has_folders = _has_class_folders(root)
    if has_folders:  # a list of the test images says nothing of the others
        there = [table for table in there if _part(table.path) in (None, "train")]
    asked = bool(options.label_column)
    if not there or (has_folders and not asked and _tell_the_same(there[0], root)):
        return None
    table = _with_split(there[0], tables, source)
    divided = csv_files.divided(table, source)
    rest = (one.path for one in there[1:] if one.path.stem not in _PARTITION)
    said = [*divided.decisions, *_passed_over(rest, root)]
    if has_folders:
        name = there[0].path.name
        said.append(Decision("labels", f"The labels are those of {name}, not the folders."))
    return replace(divided, decisions=tuple(said))


_PARTITION = ("list_eval_partition",)  # of CelebA: a number beside each name
_NUMBERED: dict[str, Part] = {"0": "train", "1": "val", "2": "test"}


def _with_split(table: Table, tables: _Tables, source: str) -> Table:
    """The table with the split that lists beside it say: names alone, in train.txt and test.txt."""
    sheet = table.sheet
    assert sheet is not None
    if sheet.parts:
        return table
    parts: dict[str, Part] = {}
    used = []
    for path in sorted({*(path for path, _ in tables.refused), *(t.path for t in tables.usable)}):
        with contextlib.suppress(DataError):
            if path.stem in _PARTITION:
                for _, cells in read_grid(path).rows:
                    parts[_stem(str(cells[0]))] = _NUMBERED.get(str(cells[-1]), "unlabelled")
                used = [path.name]
                break
            part = _part(path)
            if part is not None and path != table.path:
                parts |= {_stem(row.name): part for row in read_sheet(path, False).rows}
                used.append(path.name)
    rows = [replace(row, part=parts.get(_stem(row.name))) for row in sheet.rows]
    known = {row.part for row in rows}
    if "train" not in known or not known & {"val", "test"}:
        return table
    split = replace(sheet, rows=rows, parts=tuple(p for p in names.PARTS if p in known))
    counts = listed(f"{split.count(part):,} rows of {part}" for part in split.parts)
    sentence = f"The split of {table.path.name} is that of {listed(used)}: {counts}."
    split.decisions = [*sheet.decisions, Decision("split", sentence)]
    return replace(table, sheet=split, source=source)


def _stem(name: str) -> str:
    last = posixpath.basename(name)
    return posixpath.splitext(last)[0] if named_like_an_image(last) else last


def _has_class_folders(root: Path) -> bool:
    """Whether folders could be classes: not images/ alone, not train/ of pictures without any."""
    root = folder_splits.descended(root)
    train = folder_splits.find(root).train
    if train is not None:
        return inside(train) == "classes"
    children = [child for child in visible_folders(root) if holds(child, pictures=False)]
    return not {child.name.casefold() for child in children} <= names.NO_CLASSES


def _of_folders(tables: _Tables, source: str, options: SourceOptions) -> DataLayout | None:
    """Class folders, with a word on the tables beside them; a complaint where there are none."""
    if not _has_class_folders(Path(source)):
        return _unusable(tables, source) if tables.usable or tables.refused else None
    if not (tables.usable or _of_train(tables.refused)):
        return None
    if tar_shards.layout(source, options) is not None:
        return None
    folders = folder_splits.layout(source, options)
    if folders is None:
        return None
    said = (*folders.decisions, *_beside_folders(tables))
    return replace(folders, decisions=said)


def _tell_the_same(table: Table, root: Path) -> bool:
    """Whether class folders say no less than a table: the same labels, or of more pictures."""
    rows = _some_rows(table)
    if len({row.labels for row in rows}) < 2:  # nothing to tell apart
        return True
    located = table.locate(row.name for row in rows)
    same = 0
    for row in rows:
        folders = {part.casefold() for part in Path(located.places.get(row.name, "")).parts}
        same += any(label.casefold() in folders for label in row.labels)
    if 2 * same >= len(rows):
        return True
    assert table.sheet is not None
    pictures = sum(map(named_like_an_image, folder_splits.files_below(root)))
    return 2 * len(table.sheet.rows) < pictures


def _of_train(refused: Iterable[tuple[Path, str]]) -> list[tuple[Path, str]]:
    return [(path, why) for path, why in refused if _part(path) == "train"]


def _beside_folders(tables: _Tables) -> Iterator[Decision]:
    """What was not read because class folders are."""
    if tables.usable:
        called = listed(table.path.name for table in tables.usable)
        yield Decision(
            "labels", f"The labels are those of the class folders; {called} is not read."
        )
    for path, why in _of_train(tables.refused):
        reason = why.removeprefix(f"{path} ").rstrip(".")
        yield Decision("files", f"{path.name} is not read ({reason}); the class folders are.")


def _passed_over(paths: Iterable[Path], root: Path) -> Iterator[Decision]:
    called = listed(relative(path, root) for path in paths)
    if called:
        yield Decision("files", f"Other tables are not read: {called}.")


def _unlabelled(tables: _Tables, root: Path) -> Iterator[Decision]:
    """The lists of parts that have no labels, and so cannot be held out."""
    for path in (path for path, _ in tables.refused if _part(path) in ("val", "test")):
        sentence = f"{relative(path, root)} has no labels that can be read and is not used."
        yield Decision("files", sentence)


def _unusable(tables: _Tables, source: str) -> DataLayout | None:
    """The table to complain of, where nothing else says the labels."""
    if tables.usable:
        return csv_files.divided(tables.usable[0], source)
    refused = [(path, why) for path, why in tables.refused if path.suffix.lower() not in WORDS]
    lists = {path.stem: Table(path) for path, _ in tables.refused if _part(path)}
    train, held_out, held_name = names.divided(lists)
    if train is not None:  # scan() says why
        kind = "CSV files" if held_out else "CSV file"
        return DataLayout(kind, train, held_out, held_name, source)
    if not refused:
        return None
    others = listed(relative(path, Path(source)) for path, _ in refused[1:])
    also = f" Neither does {others}." if others else ""
    raise DataError(
        f"{source} has no class folders, and no table in it says the labels of its images. "
        f"{refused[0][1]}{also}"
    )
