"""Which layout the user's data has, and where its training and held-out images are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vitral.data import csv_files, folders, hub, problems, tar_shards
from vitral.data.csv_files import Table
from vitral.data.folders import HELD_OUT_NAMES, TRAIN_NAMES, ClassFolders
from vitral.data.sources import SplitSource
from vitral.data.tar_shards import INDEX, Shards
from vitral.errors import DataError
from vitral.storage import remote


@dataclass(frozen=True, slots=True)
class DataLayout:
    """A source before it is scanned.

    Attributes:
        kind: what it is, in words.
        train: the training images, or all; None if there are held-out images only.
        held_out: the user's own held-out images, or None.
        held_name: what those are called, "val" or "test".
        root: the folder or file, for messages.
    """

    kind: str
    train: SplitSource | None
    held_out: SplitSource | None
    held_name: str
    root: str


def find(source: str, *, labelled: bool = True) -> DataLayout:
    """The layout of a folder, a CSV file, shards, or a data set of Hugging Face.

    Without labels, images may lie anywhere in a folder, and a list or a table needs no column of
    labels.

    Raises DataError, with the closest name, if it is not there or is none of these.
    """
    if source.startswith("hf:"):
        return _hub(source, labelled)
    if remote.is_remote(source) or _is_tar(source):
        return _shard_set(source, labelled)
    source = source.removeprefix("file://")
    path = problems.existing(source)
    if path.suffix.lower() in csv_files.SUFFIXES and path.is_file():
        return DataLayout("CSV file", Table(path, labelled), None, "val", source)
    if hub.is_table(path):
        return _hub(source, labelled)
    if not path.is_dir():
        holding = "one folder for each class" if labelled else "images"
        raise DataError(f"{source} is a file; name a folder that holds {holding}.")
    lists = {
        child.name.lower(): child for child in path.iterdir() if child.suffix.lower() == ".csv"
    }
    if "train.csv" in lists:
        named = [f"{name}.csv" for name in HELD_OUT_NAMES if f"{name}.csv" in lists]
        held = Table(lists[named[0]], labelled) if named else None
        kind = "CSV files" if held else "CSV file"
        return DataLayout(
            kind, Table(lists["train.csv"], labelled), held, _held_name(named), source
        )
    if _holds_shards(path):
        return _shard_set(source, labelled)
    train, held_out = folders.split_folders(path)
    split = [child for child in (train, held_out) if child]
    beside = tuple(c.name for c in folders.visible_folders(path) if split and c not in split)
    kind = "class folders" if labelled else "folders of images"
    return DataLayout(
        kind if split else f"{kind} without splits",
        ClassFolders(train or path, path, beside, labelled) if train or not held_out else None,
        ClassFolders(held_out, path, () if train else beside, labelled) if held_out else None,
        _held_name([held_out.name] if held_out else []),
        source,
    )


def absolute(source: str) -> str:
    """The source as it can be found again from another folder."""
    if source in problems.BUILT_IN or source.startswith("hf:") or remote.is_remote(source):
        return source
    return str(Path(source.removeprefix("file://")).resolve())


def _held_name(names: Sequence[str]) -> str:
    return "test" if names and names[0].lower().startswith("test") else "val"


def _hub(source: str, labelled: bool) -> DataLayout:
    found = hub.splits(source)
    train = next((name for name in TRAIN_NAMES if name in found), None)
    held = next((name for name in HELD_OUT_NAMES if name in found), None)
    if train is None and held is None:
        raise DataError(f"{source} has no split called train, only {', '.join(found)}.")
    return DataLayout(
        "Hugging Face data set",
        None if train is None else hub.HubSplit(source, train, found[train], labelled),
        None if held is None else hub.HubSplit(source, held, found[held], labelled),
        _held_name([held] if held else []),
        source,
    )


def _is_tar(source: str) -> bool:
    """Whether a source names tar files and not a folder of such a name."""
    return source.endswith(".tar") and not Path(source.removeprefix("file://")).is_dir()


def _holds_shards(path: Path) -> bool:
    """Whether a folder is one of shards, and not class folders beside what they came in."""
    if tar_shards.MAKER in (_text(str(path / INDEX)) or "") or any(path.glob("train/*.tar")):
        return True
    inside = (file.name for depth in ("*/*", "*/*/*") for file in path.glob(depth))
    return any(path.glob("*.tar")) and not any(map(folders.named_like_an_image, inside))


def _shard_set(source: str, labelled: bool) -> DataLayout:
    """Shards by their index.json, by a pattern, or by what lies in a folder and in train/, val/."""
    folder, index, names = source.rstrip("/"), None, None
    if _is_tar(source):
        paths = dict.fromkeys(remote.expand_braces(source), "")
    else:
        text, names = _text(f"{folder}/{INDEX}"), _text(f"{folder}/classes.txt")
        if text is not None:
            index = tar_shards.read_index(text, f"{folder}/{INDEX}")
            paths = {f"{folder}/{shard['name']}": "" for shard in index["shards"]}
        else:
            below = ("", *TRAIN_NAMES, *HELD_OUT_NAMES)
            paths = {path: name for name in below for path in _tars(f"{folder}/{name}".rstrip("/"))}
    by_split: dict[str, list[str]] = {}
    for path in sorted(paths):
        split = _split_of(f"{paths[path]} {PurePosixPath(path).name}")
        by_split.setdefault(split, []).append(path)
    if not by_split:
        raise DataError(f"No tar shards under {source}, and no {INDEX} that names them.")
    classes = tuple(line.strip() for line in (names or "").splitlines())

    def place(name: str) -> Shards | None:
        paths = by_split.get(name)
        name = f"{source} ({name})"
        return Shards(name, tuple(paths), index, classes, labelled) if paths else None

    held_name = "val" if "val" in by_split else "test"
    return DataLayout("tar shards", place("train"), place(held_name), held_name, source)


def _split_of(name: str) -> str:
    """'train', 'val' or 'test' by a word in the name of a shard and of its folder."""
    words = "".join(char if char.isalpha() else " " for char in name.lower()).split()
    held = [word for word in words if word in HELD_OUT_NAMES]
    return _held_name(held) if held and not set(words) & set(TRAIN_NAMES) else "train"


def _text(path: str) -> str | None:
    if remote.is_remote(path):
        return remote.text(path)
    place = Path(path)
    return place.read_text(encoding="utf-8", errors="replace") if place.is_file() else None


def _tars(folder: str) -> list[str]:
    if remote.is_remote(folder):
        return remote.list_files(folder, ".tar")
    return sorted(str(path) for path in Path(folder).glob("*.tar") if not path.name.startswith("."))
