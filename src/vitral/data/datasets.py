"""From what the user names to labelled images: folders, CSV files, shards, `digits`, `shapes`.

    data = open_dataset("photos/")     # data.classes, data.train, data.val, data.problems

Classes are matched by name everywhere. The user's files are read and never written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vitral.data import folders, layouts
from vitral.data.layouts import DataLayout
from vitral.data.near_duplicates import Tick
from vitral.data.problems import (
    BUILT_IN,
    closest_class,
    divided_copies,
    empty_classes,
    existing,
    missing,
    refuse_many_unreadable,
    refuse_nothing,
    refuse_one_class,
    refuse_rows,
    refuse_unknown_classes,
    too_small,
)
from vitral.data.shapes import KINDS, label_of
from vitral.data.sources import QUIET, Arrays, Problem, ScanResult, Scenes, Split
from vitral.data.splits import DuplicateGroups, duplicate_groups, stratified
from vitral.errors import DataError, UsageError
from vitral.wording import listed

_FIRST_VAL = 1 << 40  # scenes of shapes from here on are never used for training


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Training and held-out samples with the same classes.

    Attributes:
        source: what the user named.
        classes: the class names, sorted; a label is an index into them.
        problems: unreadable files that were left out, and remarks.
        fingerprint: changes when a name, a size, a label or the split does.
    """

    source: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    problems: tuple[Problem, ...]
    fingerprint: str

    @property
    def multi_label(self) -> bool:
        """Whether an image has any number of labels: bool (n, classes) instead of int64 (n,)."""
        return self.train.labels.ndim > 1


def open_dataset(  # noqa: PLR0913 - the settings of a source, each by name
    source: str | Path,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    size: int | None = None,
    count: int | None = None,
    labelled: bool = True,
    allow_unreadable: bool = False,
    tick: Tick | None = None,
) -> Dataset:
    """Find the classes, the images and the splits of what the user named.

    Args:
        source: a folder of class folders, with or without train/ and val/; a CSV file, or a folder
            with train.csv; tar shards (a folder, a pattern, a URL); parquet or arrow files;
            hf:NAME; or a name of BUILT_IN (a folder of that name is reached as ./digits).
        seed: decides the split of a source without its own, and the scenes of shapes.
        val_fraction: the share of each class that is held out where the source has no split.
        size: side in pixels of the scenes of shapes; 64 if not given.
        count: number of training scenes of shapes; 10,000 if not given.
        labelled: whether images have labels. Otherwise they may lie anywhere in a folder, a list
            or a table needs no column of labels, and there are no classes: every label is -1.
        allow_unreadable: go on with more than 1 % of unreadable files, and with rows of a CSV file
            that name no file or no label.
        tick: called with (pictures looked at, of how many) while copies are looked for.

    Raises DataError for data that cannot be used, UsageError for a setting, MachineError for a
    library that is not there.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"val_fraction lies between 0 and 1, not {val_fraction}.")
    if str(source) in BUILT_IN:
        built_in = (
            _digits(seed, val_fraction)
            if str(source) == "digits"
            else _shapes(seed, val_fraction, size or 64, 10_000 if count is None else count)
        )
        return built_in if labelled else _without_labels(built_in)
    layout = layouts.find(str(source), labelled=labelled)
    if layout.train is None:
        raise DataError(f"{source} has {layout.held_name}/ but no train/; add the training images.")
    found = layout.train.scan()
    held = None if layout.held_out is None else layout.held_out.scan()
    if not labelled:
        if any(found.labels):
            found.problems.append(Problem.labels_unused(str(source)))
        found = found.without_labels()
        held = held and held.without_labels()
    refuse(layout, found, held, allow_unreadable)
    where = str(Path(layout.root).absolute())
    duplicates = duplicate_groups(found, where, tick) if held is None else None
    # held-out images are looked at before anything is learnt; far ones are when they are fetched
    near = held is not None and held.shards is None
    broken = duplicate_groups(held, where, tick).failed if held is not None and near else {}
    return divide(
        layout,
        found,
        held,
        duplicates,
        broken,
        seed=seed,
        val_fraction=val_fraction,
        allow_unreadable=allow_unreadable,
    )


def refuse(
    layout: DataLayout, found: ScanResult, held: ScanResult | None, allow_unreadable: bool
) -> None:
    """DataError for what no training should start with, as far as names and labels tell."""
    where = str(layout.train)
    refuse_rows(found, where, allow_unreadable)
    refuse_nothing(found, where)
    refuse_one_class(found, where)
    if held is not None:
        there = str(layout.held_out)
        refuse_rows(held, there, allow_unreadable)
        refuse_nothing(held, there)
        refuse_unknown_classes(held, found.classes, there)


def divide(  # noqa: PLR0913 - what was found, and the settings
    layout: DataLayout,
    found: ScanResult,
    held: ScanResult | None,
    duplicates: DuplicateGroups | None,
    broken: Mapping[int, Problem],
    *,
    seed: int,
    val_fraction: float,
    allow_unreadable: bool,
) -> Dataset:
    """What was found as training and held-out samples; `duplicates` stay on one side.

    `duplicates.failed` and `broken` are the rows of `found` and `held` that cannot be decoded.
    Raises DataError if no image is left to hold out, or too many cannot be read.
    """
    where, failed = str(layout.train), {} if duplicates is None else duplicates.failed
    group_ids = np.arange(len(found.names)) if duplicates is None else duplicates.group_ids
    group_ids = np.delete(group_ids, list(failed))
    found, held = found.without(failed), held and held.without(broken)
    problems = [*found.problems, *failed.values(), *empty_classes(found, where, layout.root)]
    classes = found.classes
    if held is not None:
        held = replace(held, problems=[*held.problems, *broken.values()])
    if failed or broken:  # some of which may have been all there was of a class
        refuse(layout, replace(found, problems=problems), held, allow_unreadable)
    if held is None:
        sides = stratified(found.names, found.numbers(classes), seed, val_fraction, group_ids)
        if len(sides[1]) == 0:
            each = f"Each class in {where}" if found.labelled else where
            raise DataError(f"{each} has one image; add more, to hold some out.")
        problems += too_small(found, where, layout.root)
        problems += divided_copies(found, where, group_ids, *sides)
        train = found.split("train", classes, sides[0])
        val = found.split("val", classes, sides[1])
    else:
        there = str(layout.held_out)
        problems += held.problems
        problems += missing(held, classes, there, layout.root)
        train = found.split("train", classes)
        val = held.split(layout.held_name, classes)
    refuse_many_unreadable(problems, len(train) + len(val), layout.root, allow_unreadable)
    return Dataset(
        source=layout.root,
        classes=classes,
        train=train,
        val=val,
        problems=tuple(problem for problem in problems if problem.code not in QUIET),
        fingerprint=_fingerprint(classes, found, held, seed, val),
    )


def labelled(
    source: str | Path,
    classes: Sequence[str],
    *,
    seed: int = 0,
    size: int | None = None,
    count: int | None = None,
) -> Split:
    """The labelled images of a source, with labels that count in `classes`, matched by name.

    A source gives its held-out images if it has its own, otherwise all; a built-in name gives its
    held-out part.

    Raises DataError if the source has a class that is not among `classes`.
    """
    split, unknown = known(source, classes, seed=seed, size=size, count=count)
    if unknown:
        name = min(unknown)
        raise DataError(
            f"{source} has a class '{name}' that the model does not know; "
            f"{closest_class(name, classes)} Rename or remove that class, train again with "
            f"it, or leave its images out with --allow-unknown."
        )
    return split


def known(
    source: str | Path,
    classes: Sequence[str],
    *,
    seed: int = 0,
    size: int | None = None,
    count: int | None = None,
) -> tuple[Split, dict[str, int]]:
    """`labelled` without the images that have a class not among `classes`; those are counted.

    Returns the split, and how many images were left out of each class that is not known.
    Raises DataError if no image is left.
    """
    if str(source) in BUILT_IN:
        data = open_dataset(source, seed=seed, size=size, count=count)
        names = [*classes, *(name for name in data.classes if name not in classes)]
        index = np.array([names.index(name) for name in data.classes], dtype=np.int64)
        split = replace(data.val, labels=index[data.val.labels])
    else:
        layout = layouts.find(str(source))
        place = layout.held_out or layout.train
        assert place is not None  # a layout has one of the two
        found = place.scan()
        refuse_rows(found, str(place), allowed=False)
        refuse_nothing(found, str(place))
        names = [*classes, *(name for name in found.classes if name not in classes)]
        split = found.split(layout.held_name if layout.held_out else "all", names)
        remarks = empty_classes(found, str(place), layout.root)
        split = replace(split, problems=(*split.problems, *remarks))
    return _without(split, names, len(classes), source)


def _without(
    split: Split, names: Sequence[str], count: int, source: str | Path
) -> tuple[Split, dict[str, int]]:
    """The samples all of whose labels are among the first `count` names; how many others have."""
    if split.labels.ndim > 1:
        strange, counts = split.labels[:, count:].any(axis=1), split.labels.sum(axis=0)
    else:
        strange, counts = split.labels >= count, np.bincount(split.labels, minlength=len(names))
    unknown = {names[k]: int(counts[k]) for k in range(count, len(names)) if counts[k]}
    if strange.any():
        split = split.select(np.flatnonzero(~strange))
    if not len(split):
        raise DataError(
            f"{source} has none of the model's classes, but {listed(sorted(unknown))}; "
            f"{closest_class(min(unknown), names[:count])} Choose other images or another model."
        )
    if split.labels.ndim > 1:
        split = replace(split, labels=split.labels[:, :count])
    return split, unknown


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
        else:
            images.append(existing(str(path), ()))
    return images


def _is_image(path: str) -> bool:
    try:
        folders.read_file_header(path)
    except DataError:
        return False
    return True


def _without_labels(data: Dataset) -> Dataset:
    splits = [
        replace(split, labels=np.full(len(split), -1, np.int64)) for split in (data.train, data.val)
    ]
    fingerprint = _digest([data.fingerprint, "without labels"])
    return replace(data, classes=(), train=splits[0], val=splits[1], fingerprint=fingerprint)


def _digits(seed: int, val_fraction: float) -> Dataset:
    """The 1,797 handwritten digits that come with scikit-learn, 8 × 8 pixels."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second, for this source alone

    data = load_digits()
    grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
    keys = tuple(f"digits/{row}" for row in range(len(grey)))
    reader = Arrays(np.repeat(grey[..., None], 3, axis=3), keys)
    labels = data.target.astype(np.int64)
    train, val = stratified(keys, labels, seed, val_fraction)
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


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _fingerprint(
    classes: Sequence[str], found: ScanResult, held: ScanResult | None, seed: int, val: Split
) -> str:
    """The digest of every name, size and label, and of the rows that are held out."""
    parts = [*classes, "own split" if held else f"split {seed} {val.rows.tolist()}"]
    for place in (found, held) if held else (found,):
        for entry in zip(place.names, place.sizes, place.labels, strict=True):
            parts.append("\0".join(map(str, entry)))
    return _digest(parts)
