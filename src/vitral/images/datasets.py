"""From what the user names to labelled images: a folder, `digits` or `shapes`.

    data = open_dataset("photos/")     # data.classes, data.train, data.val, data.problems

Classes are matched by name everywhere. The user's files are read and never written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitral.errors import DataError, UsageError
from vitral.images import complaints, folders
from vitral.images.complaints import BUILT_IN
from vitral.images.samples import KINDS, label_of
from vitral.images.sources import Arrays, Files, Problem, Scenes, Split

_FIRST_VAL = 1 << 40  # scenes of shapes from here on are never used for training


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Training and held-out samples with the same classes.

    Attributes:
        source: what the user named.
        classes: the class names, sorted; a label is an index into them.
        problems: unreadable files that were left out, and remarks.
        fingerprint: changes when a name, a size or a label does.
    """

    source: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    problems: tuple[Problem, ...]
    fingerprint: str


def open_dataset(
    source: str | Path,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    size: int | None = None,
    count: int | None = None,
    allow_unreadable: bool = False,
) -> Dataset:
    """Find the classes, the images and the splits of a folder or of a built-in name.

    Args:
        source: a folder of class folders, with or without train/ and val/, or a name of BUILT_IN
            (a folder of that name is reached as ./digits).
        seed: decides the split of a folder without val/, and the scenes of shapes.
        val_fraction: the share of each class that is held out where there is no val/.
        size: side in pixels of the scenes of shapes; 64 if not given.
        count: number of training scenes of shapes; 10,000 if not given.
        allow_unreadable: go on with more than 1 % of unreadable files.

    Raises DataError for a folder that cannot be used, UsageError for a setting.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"val_fraction lies between 0 and 1, not {val_fraction}.")
    if str(source) == "digits":
        return _digits(seed, val_fraction)
    if str(source) == "shapes":
        return _shapes(seed, val_fraction, size or 64, 10_000 if count is None else count)
    return _folder(str(source), seed, val_fraction, allow_unreadable)


def labelled(
    source: str | Path,
    classes: Sequence[str],
    *,
    seed: int = 0,
    size: int | None = None,
    count: int | None = None,
) -> Split:
    """The labelled images of a source, with labels that count in `classes`, matched by name.

    A folder gives its val/ or test/ if it has one, otherwise all its class folders; a built-in
    name gives its held-out part.

    Raises DataError if the folder has a class that is not among `classes`.
    """
    if str(source) in BUILT_IN:
        data = open_dataset(source, seed=seed, size=size, count=count)
        split, names = data.val, [data.classes[label] for label in data.val.labels]
    else:
        root = complaints.existing(str(source))
        train, held_out = folders.split_folders(root)
        folder = held_out or train or root
        found = folders.scan(folder, root)
        complaints.refuse_nothing(found, folder)
        names = found.classes
        name = folder.name if held_out else "all"
        split = _split(name, root, found, np.zeros(len(names), np.int64), range(len(names)))
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise DataError(
            f"{source} has a class '{unknown[0]}' that the model does not know; "
            f"{complaints.closest(unknown[0], classes)} Rename or "
            f"remove that folder, or train again with it."
        )
    index = {name: number for number, name in enumerate(classes)}
    labels = np.array([index[name] for name in names], dtype=np.int64)
    return Split(split.name, labels, split.rows, split.reader, split.problems)


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """The files to predict: each file as it is named, each folder's images in sorted order.

    Raises DataError for a path that does not exist and for a folder without images.
    """
    images: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            entries = folders.walk(path, [], path)
            inside = [
                Path(entry.path)
                for entry in entries
                if folders.named_like_an_image(entry.name) or _is_image(entry.path)
            ]
            if not inside:
                raise DataError(f"No images under {path}; name a folder that holds some.")
            images += sorted(inside)
        elif path.exists():
            images.append(path)
        else:
            raise DataError(f"{path} does not exist; {complaints.sibling(path, ())}")
    return images


def _is_image(path: str) -> bool:
    try:
        folders.check_header(path)
    except DataError:
        return False
    return True


def _digits(seed: int, val_fraction: float) -> Dataset:
    """The 1,797 handwritten digits that come with scikit-learn, 8 × 8 pixels."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second, for this source alone

    data = load_digits()
    grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
    keys = tuple(f"digits/{row}" for row in range(len(grey)))
    reader = Arrays(np.repeat(grey[..., None], 3, axis=3), keys)
    labels = data.target.astype(np.int64)
    train, val = _stratified(keys, labels, seed, val_fraction)
    return Dataset(
        source="digits",
        classes=tuple("0123456789"),
        train=Split("train", labels[train], train, reader),
        val=Split("val", labels[val], val, reader),
        problems=(),
        fingerprint=_digest([f"digits/{seed}/{val_fraction}"]),
    )


def _shapes(seed: int, val_fraction: float, size: int, count: int) -> Dataset:
    """Scenes 0 to count for training; for val as many more as val_fraction says, 500 at least."""
    if count < 1:
        raise UsageError(f"count is the number of training images, at least 1, not {count}.")
    reader = Scenes(seed, size)
    held_out = max(500, round(count * val_fraction / (1 - val_fraction)))
    splits = []
    for name, first, number in (("train", 0, count), ("val", _FIRST_VAL, held_out)):
        rows = np.arange(first, first + number, dtype=np.int64)
        labels = np.array([label_of(seed, row) for row in rows.tolist()], dtype=np.int64)
        splits.append(Split(name, labels, rows, reader))
    return Dataset(
        source="shapes",
        classes=KINDS,
        train=splits[0],
        val=splits[1],
        problems=(),
        fingerprint=_digest([f"shapes/{seed}/{size}/{count}/{held_out}"]),
    )


def _folder(source: str, seed: int, val_fraction: float, allow_unreadable: bool) -> Dataset:
    root = complaints.existing(source)
    train_folder, val_folder = folders.split_folders(root)
    if train_folder is None and val_folder is not None:
        raise DataError(f"{root} has {val_folder.name}/ but no train/; add the training images.")
    folder = train_folder or root
    found = folders.scan(folder, root)
    complaints.refuse_nothing(found, folder)
    classes = tuple(sorted(set(found.classes)))
    complaints.refuse_one_class(classes, folder)
    problems = [*found.problems, *complaints.empty(found, folder, root)]
    labels = _labels(found, classes)
    if val_folder is None:
        held = None
        train_rows, val_rows = _stratified(found.names, labels, seed, val_fraction)
        if len(val_rows) == 0:
            raise DataError(f"Each class in {folder} has one image; add more, to hold some out.")
        problems += complaints.too_small(found, folder, root)
        train = _split("train", root, found, labels, train_rows)
        val = _split("val", root, found, labels, val_rows)
    else:
        held = folders.scan(val_folder, root)
        complaints.refuse_nothing(held, val_folder)
        complaints.refuse_strangers(held, classes, val_folder)
        problems += [*held.problems, *complaints.missing(held, classes, val_folder, root)]
        train = _split("train", root, found, labels, range(len(labels)))
        val = _split("val", root, held, _labels(held, classes), range(len(held.names)))
    complaints.refuse_many_unreadable(problems, len(train) + len(val), root, allow_unreadable)
    return Dataset(
        source=source,
        classes=classes,
        train=train,
        val=val,
        problems=tuple(problems),
        fingerprint=_fingerprint(classes, [found] if held is None else [found, held], seed),
    )


def _labels(found: folders.Found, classes: Sequence[str]) -> np.ndarray:
    index = {name: number for number, name in enumerate(classes)}
    return np.array([index[name] for name in found.classes], dtype=np.int64)


def _split(
    name: str, root: Path, found: folders.Found, labels: np.ndarray, rows: Iterable[int]
) -> Split:
    chosen = np.fromiter(rows, dtype=np.int64)
    reader = Files(str(root), tuple(found.names))
    return Split(name, labels[chosen], chosen, reader, tuple(found.problems))


def _stratified(
    keys: Sequence[str], labels: np.ndarray, seed: int, fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and rows held out: the same share of each class, one of each at least.

    A sample's place depends on its own name and the seed, so that adding files moves few others.
    """
    order = [
        hashlib.blake2b(f"{seed}/{key}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
        for key in keys
    ]
    held_out = np.zeros(len(keys), dtype=bool)
    for label in np.unique(labels):
        rows = sorted(np.flatnonzero(labels == label).tolist(), key=order.__getitem__)
        if len(rows) > 1:
            number = min(max(1, round(len(rows) * fraction)), len(rows) - 1)
            held_out[rows[:number]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _fingerprint(classes: Sequence[str], splits: list[folders.Found], seed: int) -> str:
    parts = [*classes, f"split {seed}" if len(splits) == 1 else "own split"]
    for found in splits:
        for entry in zip(found.names, found.sizes, found.classes, strict=True):
            parts.append("\0".join(map(str, entry)))
    return _digest(parts)
