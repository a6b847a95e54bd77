"""Read data sets that many people have and whose files speak of one another by numbers or names.

CUB-200     images.txt, image_class_labels.txt, train_test_split.txt, by the number of an image
Pets        annotations/trainval.txt and test.txt, the breed in the name of the file
VOC         ImageSets/Main/CLASS_train.txt with 1 and -1, images in JPEGImages
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vitral.data.csv_files import Table, divided
from vitral.data.decisions import Decision
from vitral.data.folders import visible_folders
from vitral.data.names import Part
from vitral.data.sources import DataLayout
from vitral.data.table_columns import Row, Sheet
from vitral.errors import DataError


def layout(source: str) -> DataLayout | None:
    """Gives the layout of such a data set, or of a folder that holds nothing else."""
    root = Path(source)
    children = visible_folders(root)
    for folder in (root, *(children if len(children) == 1 else ())):
        for read in (_cub, _pets, _voc):
            table = read(folder, root)
            if table is not None:
                return divided(replace(table, source=source), source)
    return None


def _table(path: Path, root: Path, sheet: Sheet, how: str) -> Table:
    sheet.decisions.append(Decision("labels", how))
    parts: list[Part] = ["train", "val", "test"]
    sheet.parts = tuple(part for part in parts if sheet.count(part))
    return Table(path, root=root, sheet=sheet)


def _words(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The words of each line that has some, with its number; lines of # are comments."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}).") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            yield number, line.split()


def _cub(folder: Path, root: Path) -> Table | None:
    files = [
        folder / f"{name}.txt"
        for name in ("images", "image_class_labels", "train_test_split", "classes")
    ]
    if not all(file.is_file() for file in files):
        return None
    images, labels, is_train, classes = (
        {words[0]: (line, " ".join(words[1:])) for line, words in _words(file)} for file in files
    )
    sheet = Sheet()
    for number, (line, name) in images.items():
        _, own = labels.get(number, (0, ""))
        _, called = classes.get(own, (0, own))
        part: Part = "train" if is_train.get(number, (0, "1"))[1] == "1" else "test"
        lacks = "" if called else "no label"
        sheet.rows.append(Row(line, f"images/{name}", (called,) if called else (), part, lacks))
    how = "The labels and the split are those of image_class_labels.txt and train_test_split.txt."
    return _table(folder / "images.txt", root, sheet, how)


def _pets(folder: Path, root: Path) -> Table | None:
    lists: dict[Part, Path] = {
        "train": folder / "annotations" / "trainval.txt",
        "test": folder / "annotations" / "test.txt",
    }
    if not lists["train"].is_file() or not (folder / "images").is_dir():
        return None
    sheet = Sheet()
    for part, path in lists.items():
        for line, words in _words(path) if path.is_file() else ():
            breed = words[0].rpartition("_")[0]
            if len(words) != 4 or not breed:
                return None  # another data set's
            sheet.rows.append(Row(line, f"../images/{words[0]}.jpg", (breed,), part))
    how = "The label is the breed in the name of each file; the split is that of annotations/."
    return _table(lists["train"], root, sheet, how)


def _voc(folder: Path, root: Path) -> Table | None:
    main = folder / "ImageSets" / "Main"
    if not main.is_dir() or not (folder / "JPEGImages").is_dir():
        return None
    sheet = Sheet(multi_label=True)
    parts: tuple[Part, ...] = ("train", "val", "test")
    for part in parts:
        own: dict[str, set[str]] = {}
        for path in sorted(main.glob(f"*_{part}.txt")):
            for _, words in _words(path):
                labels = own.setdefault(words[0], set())
                if words[-1] != "-1":  # 0: it is there and hard to see
                    labels.add(path.stem.removesuffix(f"_{part}"))
        for line, (name, labels) in enumerate(own.items(), start=1):
            picture = f"../../JPEGImages/{name}.jpg"
            sheet.rows.append(Row(line, picture, tuple(sorted(labels)), part))
    if not sheet.rows:
        return None
    how = (
        "The labels and the split are those of ImageSets/Main; what is there and hard to see (0) "
        "counts as there."
    )
    return _table(main / "train.txt", root, sheet, how)
