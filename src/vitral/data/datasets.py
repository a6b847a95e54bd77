"""Open what the user names: images to train on, and images to score a model on.

    data = open_dataset("photos/")     # data.classes, data.train, data.val, data.problems
    images = open_for_scoring("photos/", classes, division=card.division)     # images.split

Classes are matched by name everywhere. The user's files are read and never written.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vitral.data import class_tree, corrections, folders, layouts, owners, problems
from vitral.data.contents import contents_of
from vitral.data.decisions import Decision, in_order
from vitral.data.near_duplicates import Tick
from vitral.data.scanning import matched, scan
from vitral.data.sources import (
    LEFT_OUT,
    QUIET,
    DataLayout,
    Dataset,
    Division,
    Files,
    Groups,
    Problem,
    ScanResult,
    SourceOptions,
    Split,
)
from vitral.data.splits import DuplicateGroups, duplicate_groups, stratified
from vitral.errors import DataError, UsageError
from vitral.wording import listed


def open_dataset(  # noqa: PLR0913 - the settings of a source, each by name
    source: str | Path,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    size: int | None = None,
    count: int | None = None,
    labelled: bool = True,
    allow_unreadable: bool = False,
    known: Sequence[str] = (),
    tree: str | None = None,
    class_file: str = "",
    label_file: str = "",
    groups: Groups = "auto",
    label_column: str = "",
    tick: Tick | None = None,
) -> Dataset:
    """Finds the classes, the images and the splits of what the user named.

    Args:
        source: a folder of class folders, with or without train/ and val/; a table (CSV, JSON), or
            a folder with tables; list.csv@test for one part of it; tar shards (a folder, a pattern,
            a URL); parquet or arrow files; hf:NAME; or a name of BUILT_IN (a folder of that name is
            reached as ./digits).
        seed, val_fraction, size, count, labelled: as in SourceOptions. Without labels there are
            no classes, and every label is -1.
        allow_unreadable: go on with more than 1 % of unreadable files, and with rows of a CSV file
            that name no file or no label.
        known: classes that the data set has beside those of its images; with them one class of
            images is enough.
        tree: as in SourceOptions.
        class_file, label_file, groups, label_column: as in SourceOptions.
        tick: called with (pictures looked at, of how many) while copies are looked for.

    Raises DataError for data that cannot be used, UsageError for a setting, MachineError for a
    library that is not there.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"val_fraction lies between 0 and 1, not {val_fraction}.")
    options = SourceOptions(
        labelled=labelled,
        seed=seed,
        val_fraction=val_fraction,
        size=size,
        count=count,
        known=tuple(known),
        tree=tree,
        class_file=class_file,
        label_file=label_file,
        groups=groups,
        label_column=label_column,
    )
    class_tree.refuse(options, str(source))
    layout = layouts.find(str(source), options)
    problems.refuse_nothing_to_train_on(layout, options, str(source))
    parts = scan((layout.train, layout.held_out), layout, options)
    scanned = parts[0]
    held = parts[1] if len(parts) > 1 else None
    if not labelled:
        if any(scanned.labels) and not scanned.made_from:
            scanned.problems.append(Problem.labels_unused(str(source)))
        scanned = scanned.without_labels()
        held = held and held.without_labels()
    refuse(layout, scanned, held, allow_unreadable, options.known)
    where = str(Path(layout.root).absolute())
    duplicates = broken = DuplicateGroups(np.arange(len(scanned.names)))
    if held is None and not scanned.made_from:
        duplicates = duplicate_groups(scanned, where, tick)
    # held-out images are looked at before anything is learnt; far ones are when they are fetched
    elif held is not None and held.shards is None and not held.made_from:
        broken = duplicate_groups(held, where, tick)
        held.problems += broken.remarks
        scanned.problems += _unseen(scanned, where, tick)
    data = divide(layout, scanned, held, duplicates, broken.failed, options, allow_unreadable)
    banded = scanned.banded or (None if held is None else held.banded)
    return replace(data, banded=banded)


def _unseen(scanned: ScanResult, where: str, tick: Tick | None) -> tuple[Problem, ...]:
    """Remarks on pictures of which nothing would be seen, where a header tells of transparency."""
    opaque = [
        row
        for row, header in enumerate(scanned.headers)
        if header is None or "transparent" not in header.remarks
    ]
    left = scanned.without(set(opaque))
    return duplicate_groups(left, where, tick).remarks if left.names else ()


def refuse(
    layout: DataLayout,
    scanned: ScanResult,
    held: ScanResult | None,
    allow_unreadable: bool,
    known: tuple[str, ...] = (),
) -> None:
    """Raises DataError for what no training should start with, as far as names and labels tell."""
    where = str(layout.train)
    problems.refuse_rows(scanned, where, allow_unreadable)
    problems.refuse_nothing(scanned, where)
    problems.refuse_one_class(scanned, where, beside_known=bool(known))
    if held is not None:
        there = str(layout.held_out)
        problems.refuse_rows(held, there, allow_unreadable)
        problems.refuse_nothing(held, there)
        problems.refuse_unknown_classes(held, _classes(scanned, known), there)


def _classes(scanned: ScanResult, known: Sequence[str]) -> tuple[str, ...]:
    """The classes of the images and those that are known beside them, sorted."""
    if not known or not scanned.labelled:
        return scanned.classes
    return tuple(sorted({*scanned.classes, *known}))


def divide(
    layout: DataLayout,
    scanned: ScanResult,
    held: ScanResult | None,
    duplicates: DuplicateGroups,
    broken: Mapping[int, Problem],
    options: SourceOptions,
    allow_unreadable: bool,
) -> Dataset:
    """Makes training and held-out samples of what was found; `duplicates` stay on one side.

    `duplicates.failed` and `broken` are the rows of `scanned` and `held` that cannot be decoded.
    Raises DataError if no image is left to hold out, or too many cannot be read.
    """
    where = str(layout.train)
    failed = duplicates.failed
    group_ids = np.delete(duplicates.group_ids, list(failed))
    scanned = scanned.without(failed)
    held = held and replace(held.without(broken), problems=[*held.problems, *broken.values()])
    if held is not None and held.multi_label != scanned.multi_label:  # in one of two lists alone
        scanned = replace(scanned, multi_label=True)
        held = replace(held, multi_label=True)
    remarks = [
        *scanned.problems,
        *failed.values(),
        *duplicates.remarks,
        *problems.empty_classes(scanned, where, layout.root),
    ]
    classes = _classes(scanned, options.known)
    if failed or broken:  # some of which may have been all there was of a class
        remarked = replace(scanned, problems=remarks)
        refuse(layout, remarked, held, allow_unreadable, options.known)
    if held is None:
        numbers = scanned.numbers(classes)
        whole = owners.together(group_ids, scanned) if options.groups == "auto" else group_ids
        sides = stratified(scanned.names, numbers, options.seed, options.val_fraction, whole)
        if len(sides[1]) == 0:
            each = f"Each class in {where}" if scanned.labelled else where
            raise DataError(f"{each} has one image; add more, to hold some out.")
        remarks += problems.too_small(scanned, where, layout.root)
        remarks += problems.divided_copies(scanned, where, group_ids, *sides)
        train = scanned.split("train", classes, sides[0])
        val = scanned.split("val", classes, sides[1])
    else:
        remarks += held.problems
        remarks += problems.missing(held, scanned.classes, str(layout.held_out), layout.root)
        train = scanned.split("train", classes)
        val = held.split(layout.held_name, classes)
    problems.refuse_many_unreadable(remarks, len(train) + len(val), layout.root, allow_unreadable)
    if scanned.labelled:
        problems.refuse_unscorable(train, val, classes, layout.root)
        remarks += problems.never_held_out(val, classes, scanned.classes, remarks)
    data = Dataset(
        source=layout.root,
        absolute_source=layout.absolute,
        classes=classes,
        train=train,
        val=val,
        problems=tuple(problem for problem in remarks if problem.code not in QUIET),
        fingerprint=_fingerprint(classes, scanned, held, options, val),
        contents=contents_of(classes, [scanned] if held is None else [scanned, held], train, val),
        decisions=decisions_of(layout, scanned, held, remarks, options),
    )
    return class_tree.grouped(data, options, scanned)


def decisions_of(
    layout: DataLayout,
    scanned: ScanResult,
    held: ScanResult | None,
    remarks: Iterable[Problem],
    options: SourceOptions,
) -> tuple[Decision, ...]:
    """Lists what was chosen for the user: by those who looked, and what the remarks come to."""
    parts = [scanned] if held is None else [scanned, held]
    decisions = [*layout.decisions, *(one for part in parts for one in part.decisions)]
    decisions.append(Decision("layout", f"{layout.root}: {layout.kind}."))
    if any(part.multi_label for part in parts):
        decisions.append(Decision("labels", "An image has any number of labels, or none."))
    if not scanned.labelled:
        decisions.append(Decision("labels", "No labels are used."))
    own = layout.held_out is not None and layout.held_name == "val"
    if not (own and any(one.topic == "split" for one in decisions)):  # said by who found it
        decisions.append(Decision("split", _split_sentence(layout, scanned, options)))
    decisions += owners.decided(scanned, held, options)
    return in_order([*decisions, *problems.decided(remarks, parts)])


def _split_sentence(layout: DataLayout, scanned: ScanResult, options: SourceOptions) -> str:
    if layout.held_out is None:
        each = "of each class " if scanned.labelled else ""
        copies = "" if scanned.made_from else "; copies of a picture stay on one side"
        return (
            f"There is no split, so {100 * options.val_fraction:g} % {each}is held out, by seed "
            f"{options.seed}{copies}."
        )
    if layout.held_name == "test":
        return (
            f"There are no validation images, so those of {layout.held_out} choose the best "
            f"weights; their accuracy is then no longer that of unseen images."
        )
    return f"The split is its own: {layout.held_out} is held out."


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSet:
    """Images that a model is to be scored on.

    Attributes:
        split: with labels that count in the classes of the model.
        held_out_by_training: whether they are what training held out, on which the calibration
            was fitted.
        unknown: images left out of each class that the model does not know.
        decisions: what was chosen for the user.
    """

    split: Split
    held_out_by_training: bool = False
    unknown: Mapping[str, int] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()


def open_for_scoring(
    source: str | Path,
    classes: Sequence[str],
    *,
    division: Division | None = None,
    size: int | None = None,
    allow_unknown: bool = False,
    class_file: str = "",
    label_file: str = "",
) -> EvalSet:
    """Finds the images of a source to score a model on, with labels matched to `classes` by name.

    The data that the model was trained on gives the images that training held out, never those it
    learnt from. Other sources give their held-out images if they have their own, otherwise all;
    built-in data gives its held-out part.

    Args:
        source: as for open_dataset.
        classes: the names that the model knows; a label counts in them.
        division: how the model's training divided its data, where that is known.
        size: side in pixels of the scenes of `shapes`.
        allow_unknown: leave out images of classes that the model does not know, and count them.
        class_file, label_file: as in SourceOptions.

    Raises DataError if the source has a class that is not among `classes` and those are not
    allowed, or if no image is left.
    """
    if division is not None:
        own = _held_out_by_training(source, division, size)
        if own is None and division.source and layouts.is_held_out_part(source, division.source):
            source = division.source
            own = _held_out_by_training(source, division, size)
        if own is not None and label_file:
            root = Path(source) if Path(source).is_dir() else Path(source).parent
            own = corrections.apply_to_split(own, classes, root, label_file)
            said = (Decision("labels", f"Labels are those that {label_file} corrects."),)
            return EvalSet(split=own, held_out_by_training=True, decisions=said)
        if own is not None:
            return EvalSet(split=own, held_out_by_training=True)
    nested = division is not None and division.nested
    options = SourceOptions(
        size=size,
        tree="folders" if nested else "none",
        class_file=class_file,
        label_file=label_file,
    )
    layout = layouts.find(str(source), options)
    place = layout.held_out or layout.train
    assert place is not None  # a layout has one of the two
    scanned = matched(scan([place], layout, options)[0], classes)
    problems.refuse_rows(scanned, str(place), allowed=False)
    problems.refuse_nothing(scanned, str(place))
    names = [*classes, *(name for name in scanned.classes if name not in classes)]
    if layout.held_out is None and scanned.made_from:  # any model may have learnt from the rest
        labels = scanned.numbers(names)
        _, rows = stratified(scanned.names, labels, options.seed, options.val_fraction)
        split = scanned.split("val", names, rows)
    else:
        split = scanned.split(layout.held_name if layout.held_out else "all", names)
    remarks = problems.empty_classes(scanned, str(place), layout.root)
    split = replace(split, problems=(*split.problems, *remarks))
    split, unknown = without_unknown(split, names, len(classes), source)
    if unknown and not allow_unknown:
        raise problems.unknown_class(source, min(unknown), classes)
    decisions = in_order([*layout.decisions, *scanned.decisions])
    return EvalSet(split=split, unknown=unknown, decisions=decisions)


def open_as_trained(source: str | Path, division: Division, size: int | None) -> Dataset:
    """Opens and divides images as a training did; raises what `open_dataset` does.

    A file that groups the classes is not read: it changes neither the images nor the division.
    """
    return open_dataset(
        source,
        seed=division.seed,
        val_fraction=division.val_fraction,
        count=division.count,
        size=size,
        allow_unreadable=True,
        known=division.known,
        class_file=division.class_file,
        label_file=division.label_file,
        groups=division.groups,
        label_column=division.label_column,
        tree="folders" if division.nested else "none",
    )


def _held_out_by_training(source: str | Path, division: Division, size: int | None) -> Split | None:
    """The images that training held out, if `source` is the data of the training as it was."""
    again = divided_by_training(source, division, size)
    return None if again is None else again.val


def divided_by_training(source: str | Path, division: Division, size: int | None) -> Dataset | None:
    """Opens the images as training divided them; None if `source` is not its data as it was."""
    # what another version or program wrote into the artifact only costs this convenience
    with contextlib.suppress(DataError, TypeError, UsageError):
        again = open_as_trained(source, division, size)
        if again.fingerprint == division.fingerprint:
            return again
    return None


def without_unknown(
    split: Split, names: Sequence[str], count: int, source: str | Path
) -> tuple[Split, dict[str, int]]:
    """The samples all of whose labels are among the first `count` names; how many others have."""
    if split.labels.ndim > 1:
        strange = split.labels[:, count:].any(axis=1)
        counts = split.labels.sum(axis=0)
    else:
        strange = split.labels >= count
        counts = np.bincount(split.labels, minlength=len(names))
    unknown = {names[k]: int(counts[k]) for k in range(count, len(names)) if counts[k]}
    if strange.any():
        split = split.select(np.flatnonzero(~strange))
    if not len(split):
        raise DataError(
            f"{source} has none of the model's classes, but {listed(sorted(unknown))}; "
            f"{problems.closest_class(min(unknown), names[:count])} Choose other images or "
            f"another model."
        )
    if split.labels.ndim > 1:
        split = replace(split, labels=split.labels[:, :count])
    return split, unknown


def common(first: EvalSet, second: EvalSet) -> tuple[EvalSet, EvalSet]:
    """Keeps the images of both sets, in one order: those that neither of two models learnt from.

    Both are of one source. Raises DataError where no image is in both.
    """
    places = {second.split.key(i): i for i in range(len(second.split))}
    kept = [i for i in range(len(first.split)) if first.split.key(i) in places]
    if not kept:
        raise DataError(
            "No image is left that both models can be asked about: each held out others, or knows "
            "other classes. Compare them on images that neither learnt from."
        )
    same = [places[first.split.key(i)] for i in kept]
    return (
        replace(first, split=first.split.select(kept)),
        replace(second, split=second.split.select(same)),
    )


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """Lists the files to predict: each file as it is named, each folder's images in sorted order.

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
            images.append(problems.existing(str(path), ()))
    return images


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Listing:
    """All images of some sources, labelled or not.

    Attributes:
        splits: the images, those held out last.
        classes: names of the labels; empty where there are none.
        failed: images that are named and cannot be used.
    """

    splits: tuple[Split, ...]
    classes: tuple[str, ...] = ()
    failed: tuple[Problem, ...] = ()


def list_images(sources: Sequence[str], size: int) -> Listing:
    """Lists labelled images where one source has them; otherwise all images that can be found.

    `size` is that of SourceOptions, for images that are drawn. Raises what `find_images` raises.
    """
    layout = None
    if len(sources) == 1:
        # a folder whose tables say no labels still holds images
        ignored = (DataError,) if Path(sources[0]).is_dir() else ()
        with contextlib.suppress(*ignored):
            layout = layouts.recognise(sources[0], SourceOptions(size=size))
    if layout is not None and not _is_of_loose_images(layout, sources[0]):
        places = [place for place in (layout.train, layout.held_out) if place is not None]
        scans = scan(places, layout, SourceOptions(size=size))
        for place, images in zip(places, scans, strict=True):
            problems.refuse_rows(images, str(place), allowed=True)
        classes = tuple(sorted({name for images in scans for name in images.classes}))
        failed = [problem for images in scans for problem in images.problems]
        failed = [problem for problem in failed if problem.code in (*LEFT_OUT, "missing")]
        if classes:
            splits = [images.split("all", classes) for images in scans if images.names]
            return Listing(splits=tuple(splits), classes=classes, failed=tuple(failed))
    files = tuple(map(str, find_images(sources)))
    rows = np.arange(len(files))
    return Listing(splits=(Split("all", np.zeros_like(rows), rows, Files("", files)),))


def _is_of_loose_images(layout: DataLayout, source: str) -> bool:
    """Whether images lie beside the class folders of a folder, which no class then holds."""
    path = Path(source)
    of_folders = isinstance(layout.train or layout.held_out, folders.ClassFolders)
    return (layout.is_path and of_folders and path.is_dir()) and any(
        folders.named_like_an_image(child.name) for child in path.iterdir()
    )


def _is_image(path: str) -> bool:
    try:
        folders.read_file_header(path)
    except DataError:
        return False
    return True


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _fingerprint(
    classes: Sequence[str],
    scanned: ScanResult,
    held: ScanResult | None,
    options: SourceOptions,
    val: Split,
) -> str:
    """The digest of every name, size and label, and of the rows that are held out."""
    if scanned.made_from:
        division = [] if held else [str(options.seed), str(options.val_fraction)]
        without = [] if scanned.labelled else ["without labels"]
        return _digest(["/".join([scanned.made_from, *division]), *without])
    parts = [*classes, "own split" if held else f"split {options.seed} {val.rows.tolist()}"]
    for side in (scanned, held) if held else (scanned,):
        for entry in zip(side.names, side.sizes, side.labels, strict=True):
            parts.append("\0".join(map(str, entry)))
    return _digest(parts)
