"""Class names in a file: `--classes FILE`, or a file beside folders that are called by numbers.

    names = read("cat_to_name.json")
    for_logits(names, 102)             # the names in the order of a model's logits
    for_folders(names, ["1", "10"])    # {"1": "pink primrose", "10": "globe thistle"}

    one name on each line              a list in JSON             id,name in CSV
    0 tench  or  n01440764 tench       {"0": "tench"}, {"tench": 0}, {"id2label": {...}}

A plain list names logits in their order. Keys that count from 0 are the numbers of logits; any
other keys are names of folders, which torchvision's ImageFolder sorts as texts ("1", "10", "2").
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitral.catalog import wordnet
from vitral.data.table_text import csv_rows, read_utf8
from vitral.errors import DataError
from vitral.wording import listed

# Files that stand beside class folders, in the order in which they are looked for.
BESIDE = (
    *("classes.txt", "class_names.txt", "labels.txt", "names.txt", "label_names.txt"),
    *("cat_to_name.json", "id2label.json", "label_map.json", "labels.json", "classes.json"),
    *("class_names.json", "names.json", "label_to_name.json", "class_index.json"),
)
_KEYED_LINE = re.compile(r"(\d+|n\d{8})[\s,:;=\t]+(\S.*)")
_INSIDE = ("id2label", "label2id", "names", "class_names", "classes", "labels", "categories")
_ID_COLUMNS: tuple[str, ...] = (
    "id",
    "class_id",
    "classid",
    "label",
    "index",
    "idx",
    "number",
    "key",
    "folder",
)
_ID_COLUMNS += ("wnid", "class", "category_id", "label_id")
_NAME_COLUMNS = ("name", "class_name", "label_name", "classname", "category", "title", "word")


@dataclass(frozen=True, slots=True)
class ClassNames:
    """The class names that a file gives.

    Attributes:
        path: of the file.
        names: in the order of the file, all different.
        keys: what each name stands for: a number or the name of a folder; empty for a plain list.
    """

    path: str
    names: tuple[str, ...]
    keys: tuple[str, ...] = ()

    @property
    def counts_from_zero(self) -> bool:
        """Tells whether the keys are the numbers 0, 1, 2, ... in any order."""
        return sorted(self.keys) == sorted(map(str, range(len(self.names))))


def read(path: str | Path) -> ClassNames:
    """Reads a file of class names.

    Raises DataError for a file that cannot be read as one, for empty lines and for two classes of
    one name.
    """
    path = Path(path)
    text = read_utf8(path, absent="name a file of class names.", save_as="UTF-8")
    match path.suffix.lower():
        case ".json":
            pairs = _of_json(text, path)
        case ".csv" | ".tsv":
            pairs = _of_csv(text, path)
        case _:
            pairs = _of_lines(text, path)
    names = [unicodedata.normalize("NFC", name).strip() for _, name in pairs]
    keys = [unicodedata.normalize("NFC", key).strip() for key, _ in pairs]
    if not names:
        raise DataError(f"{path} names no class.")
    if "" in names:
        raise DataError(f"{path} has an empty name, number {names.index('') + 1}; fill it in.")
    for what, values in (("class", names), ("key", keys if any(keys) else [])):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            at = [str(i + 1) for i, value in enumerate(values) if value == twice[0]]
            raise DataError(
                f"{path} has the {what} '{twice[0]}' {len(at)} times (numbers "
                f"{', '.join(at[:5])}); classes are told apart by it, so make each its own."
            )
    return ClassNames(str(path), tuple(names), tuple(keys) if any(keys) else ())


def _of_lines(text: str, path: Path) -> list[tuple[str, str]]:
    lines = text.rstrip().splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise DataError(f"{path} line {number} is empty; it has one class name on each line.")
    matches = [_KEYED_LINE.fullmatch(line.strip()) for line in lines]
    keyed = [(match[1], match[2]) for match in matches if match]
    if len(keyed) == len(lines) and _are_keys([key for key, _ in keyed]):
        return keyed
    return [("", line) for line in lines]


def _are_keys(keys: Sequence[str]) -> bool:
    """Whether these stand for classes: WordNet's identifiers, or numbers without a gap."""
    if all(map(wordnet.is_id, keys)):
        return True
    if not all(key.isdecimal() for key in keys):
        return False
    numbers = sorted(map(int, keys))
    return numbers in (list(range(len(keys))), list(range(1, len(keys) + 1)))


def _of_json(text: str, path: Path) -> list[tuple[str, str]]:
    try:
        values: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} line {error.lineno} is no JSON: {error.msg}.") from None
    if isinstance(values, Mapping):
        inner = next(
            (values[key] for key in _INSIDE if isinstance(values.get(key), list | dict)), None
        )
        values = values if inner is None else inner
    if isinstance(values, list):
        if values and all(
            isinstance(one, Mapping) and {"id", "name"} <= set(one) for one in values
        ):
            return [(str(one["id"]), str(one["name"])) for one in values]
        if all(isinstance(name, str) for name in values):
            return [("", name) for name in values]
    if isinstance(values, Mapping) and values:
        if all(isinstance(number, int) for number in values.values()):
            return [(str(number), str(name)) for name, number in values.items()]
        last = {  # {"0": ["n01440764", "tench"]}, the index of Keras and PyTorch
            key: name[-1] if isinstance(name, list) and name else name
            for key, name in values.items()
        }
        if all(isinstance(name, str) for name in last.values()):
            return [(str(key), name) for key, name in last.items()]
    raise DataError(
        f"{path} is no list of class names: it is a list of texts, or maps numbers to names, or "
        f"names to numbers."
    )


def _of_csv(text: str, path: Path) -> list[tuple[str, str]]:
    rows = [cells for _, cells in csv_rows(path, text)]
    while rows and not any(cell.strip() for cell in rows[-1]):
        rows.pop()
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    key = next((header.index(name) for name in _ID_COLUMNS if name in header), None)
    name = next((header.index(word) for word in _NAME_COLUMNS if word in header), None)
    if name is not None:
        rows = rows[1:]
    elif len(header) == 1:
        name = 0
    elif len(header) == 2 and (header[0].isdecimal() or wordnet.is_id(header[0])):
        key = 0
        name = 1
    else:
        raise DataError(
            f"The first line of {path} names two columns, id and name, not "
            f"'{','.join(header)[:80]}'."
        )
    cells = []
    for number, row in enumerate(rows, 1):
        if len(row) <= max(name, key or 0):
            raise DataError(f"{path} row {number} has {len(row)} cells; it needs an id and a name.")
        cells.append(("" if key is None else row[key], row[name]))
    return cells


def for_logits(names: ClassNames, count: int) -> tuple[str, ...]:
    """Puts the names in the order of a model's logits; DataError where they are not so many."""
    if len(names.names) != count:
        raise DataError(
            f"{names.path} names {len(names.names):,} classes, and the model has {count:,}: one "
            f"for each logit, in their order."
        )
    if not names.keys:
        return names.names
    by_key = dict(zip(names.keys, names.names, strict=True))
    if names.counts_from_zero:
        return tuple(by_key[str(number)] for number in range(count))
    return tuple(by_key[key] for key in sorted(by_key))


def order_of(names: ClassNames) -> str:
    """Says in a sentence how `for_logits` reads a file; "" for the order of a plain list."""
    if not names.keys or names.counts_from_zero:
        return ""
    first = sorted(zip(names.keys, names.names, strict=True))[:3]
    shown = ", ".join(f"{number}: '{key}' ({name})" for number, (key, name) in enumerate(first))
    return (
        f"The keys of {names.path} are taken for folders, which torchvision's ImageFolder sorts as "
        f"texts: logit {shown}, ... For another order write one name on each line."
    )


def for_folders(names: ClassNames, folders: Iterable[str]) -> dict[str, str]:
    """Maps folders, or labels of a table, to the names that the file has for them.

    Raises DataError where the file does not say which name is whose.
    """
    folders = sorted(set(folders))
    if set(folders) <= set(names.names):
        return {folder: folder for folder in folders}
    if names.keys:
        return _by_key(names, folders)
    if not all(folder.isdecimal() for folder in folders):
        raise DataError(
            f"{names.path} is a list without keys, and the classes are called "
            f"{listed(folders, 3)}, not by numbers; write 'FOLDER,NAME' lines in a .csv file with "
            f"the header id,name."
        )
    numbers = [int(folder) for folder in folders]
    count = len(names.names)
    if min(numbers) == 0 and max(numbers) < count:
        start = 0
    elif min(numbers) > 0 and max(numbers) == count:
        start = 1
    else:
        raise DataError(
            f"{names.path} names {count:,} classes, and the folders are {min(numbers)} to "
            f"{max(numbers)}: do they count from 0 or from 1? Write 'NUMBER NAME' on each line."
        )
    return {folder: names.names[int(folder) - start] for folder in folders}


def _by_key(names: ClassNames, folders: Sequence[str]) -> dict[str, str]:
    by_key = dict(zip(names.keys, names.names, strict=True))
    by_number = {int(key): name for key, name in by_key.items() if key.isdecimal()}
    found = {}
    for folder in folders:
        name = by_key.get(folder)
        if name is None and folder.isdecimal():
            name = by_number.get(int(folder))
        if name is not None:
            found[folder] = name
    missing = [folder for folder in folders if folder not in found]
    if missing:
        raise DataError(
            f"{names.path} has no name for {listed(missing, 5)}; it knows {listed(names.keys, 5)}."
        )
    return found


def beside(root: Path, folders: Iterable[str]) -> tuple[ClassNames, dict[str, str]] | None:
    """Finds a file of names beside class folders that are called by numbers alone.

    It lies in the folder or in the one above it, where its keys have to tell each folder's name.
    """
    folders = list(folders)
    if not folders or not all(folder.isdecimal() for folder in folders):
        return None
    for place in (root, root.absolute().parent):
        for file in BESIDE:
            if not (place / file).is_file():
                continue
            try:
                names = read(place / file)
                if place == root or names.keys:
                    return names, for_folders(names, folders)
            except DataError:  # a list of something else
                continue
    return None
