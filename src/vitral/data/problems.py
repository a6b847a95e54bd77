"""Say what is wrong with a source of images: what, where, what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from vitral.data.builtin import BUILT_IN
from vitral.data.csv_files import Table
from vitral.data.decisions import Decision, Topic
from vitral.data.folders import ClassFolders, named_like_an_image, visible_folders
from vitral.data.names import NO_CLASSES, part_of
from vitral.data.other_files import label_files, other_files
from vitral.data.sources import (
    LEFT_OUT,
    Code,
    DataLayout,
    Problem,
    ScanResult,
    SourceOptions,
    Split,
)
from vitral.errors import DataError
from vitral.wording import closest, did_you_mean, listed

_ROWS = {
    "empty-row": "rows that are empty or have no label",
    "missing": "rows that name no file",
    "two-labels": "files with two labels",
    "case": "labels that differ in letter case alone",
}
_PASSED_OVER = frozenset({"empty-row", "missing"})

# What the problems of a kind come to, where that was a choice.
_CHOSEN: dict[Code, tuple[Topic, str]] = {
    "unreadable": ("files", "Left out, since they cannot be read"),
    "truncated": ("files", "Left out, since they end early"),
    "empty-row": ("files", "Rows passed over, without a file or a label"),
    "missing": ("files", "Rows passed over, of files that are not there"),
    "beside": ("files", "Not used, since they stand beside the classes"),
    "twins": ("classes", "Taken as one class, since Unicode writes the same name in two ways"),
    "similar-names": ("classes", "Kept apart, though upper and lower case alone tell them apart"),
    "empty": ("classes", "No class, without an image that can be read"),
    "unmatched": ("classes", "Trained and not evaluated, since no image is held out"),
    "small": ("split", "Not held out, since the class has one image"),
    "unseen": ("pixels", "Shown by the colours beneath, since they are transparent everywhere"),
    "leakage": ("split", "Held out and trained on, since all images of the class are copies"),
}
_UNUSUAL: dict[Code, str] = {
    "rotated": "turned upright, as the file says (EXIF)",
    "16-bit": "scaled to 8 bits by its own range",
    "transparent": "pasted on white where it is transparent",
}
_UNREADABLE = 0.01  # share of the files beyond which something is wrong with the whole folder


def existing(source: str, names: Sequence[str] = BUILT_IN) -> Path:
    """Finds the path that was named; DataError, with the closest name or `names`, if not there."""
    path = Path(source)
    if not path.exists():
        if path.is_symlink():
            raise DataError(f"{source} is a link that leads nowhere.")
        raise DataError(f"{source} does not exist; {sibling(path, names)}")
    return path


def sibling(path: Path, names: Sequence[str] = BUILT_IN) -> str:
    """Suggests the closest neighbour or one of `names` in a sentence, or says what to check."""
    try:
        neighbours = [child.name for child in path.parent.iterdir()]
    except OSError:
        neighbours = []
    near = closest(path.name, [*neighbours, *names])
    if near is None:
        return f"give an existing path{', or one of ' if names else ''}{', '.join(names)}."
    return f"did you mean {near if near in names else path.parent / near}?"


def closest_class(name: str, classes: Sequence[str]) -> str:
    """Suggests the class that was meant, or says which classes there are."""
    return did_you_mean(name, classes, f"it knows {listed(classes)}.")


def refuse_rows(scanned: ScanResult, where: str, allowed: bool) -> None:
    """Raises DataError if rows of a list cannot be what was meant; counts and shows each kind.

    Rows without a file or a label are passed over where that is allowed; others never are.
    """
    parts = []
    for code, kind in _ROWS.items():
        rows = [problem for problem in scanned.problems if problem.code == code]
        if rows and not (allowed and code in _PASSED_OVER):
            shown = "; ".join(f"{row.path}: {row.reason}" for row in rows[:3])
            parts.append(f"{kind}: {len(rows)} ({shown})")
    if parts:
        raise DataError(
            f"{where} cannot be used as it is: {'; '.join(parts)}. Correct the file; several "
            f"labels of an image stand in one row, with | between. Rows without "
            f"a file or a label are passed over with --set data.allow_unreadable=true."
        )


def refuse_nothing(scanned: ScanResult, where: str) -> None:
    """Raises DataError if no image was found, or none of them can be read."""
    if scanned.names:
        return
    unreadable = [problem for problem in scanned.problems if problem.code in LEFT_OUT]
    if unreadable:
        raise DataError(
            f"None of the {len(unreadable)} images under {where} can be read, for example "
            f"{unreadable[0].path}: {unreadable[0].reason}"
        )
    folder = Path(where)
    if folder.is_dir() and any(named_like_an_image(child.name) for child in folder.iterdir()):
        told = label_files(folder)
        if not told and part_of(folder.name, alone=False):
            told = label_files(folder.parent)
        raise DataError(
            f"{where} has images but no class folders; put the images of each class in a folder "
            f"named after it, or list them in {folder / 'train.csv'} (path,label). Without "
            f"labels: --recipe masked-patches. {told}".rstrip()
        )
    others = other_files(folder).sentence() if folder.is_dir() else ""
    if others:
        raise DataError(f"No images under {where}. {others}")
    if folder.is_dir() and scanned.labelled:
        raise DataError(f"No images under {where}; it needs one folder of images for each class.")
    raise DataError(f"No images {'under' if folder.is_dir() else 'in'} {where}.")


def refuse_one_class(scanned: ScanResult, where: str, *, beside_known: bool = False) -> None:
    """Raises DataError for a single class: there is nothing to tell apart.

    Folders such as images and annotations are no classes either. `beside_known` says that other
    classes are known without images, so that a single one will do.
    """
    classes = scanned.classes
    folder = Path(where)
    told = label_files(folder) if folder.is_dir() and scanned.labelled else ""
    if classes and folder.is_dir() and {name.casefold() for name in classes} <= NO_CLASSES:
        raise DataError(
            f"{where} has the folders {listed(classes)}, which are called like parts of a data set "
            f"and not like classes. Put the images of each class in a folder named after it, or "
            f"list them in {folder / 'train.csv'} (path,label). {told}".rstrip()
        )
    enough = len(classes) > 1 or (classes and (scanned.multi_label or beside_known))
    if enough or not scanned.labelled:
        return
    name = classes[0] if classes else "none"
    inside = []
    if (folder / name).is_dir():
        inside = [child.name for child in visible_folders(folder / name)]
    hint = (
        f"If its sub-folders ({listed(inside)}) are the classes, give {folder / name}."
        if inside
        else told
        or "Add images of something else, or learn it beside the classes of a network: --from RUN "
        "--keep."
    )
    raise DataError(f"{where} has one class only, '{name}': nothing to tell apart. {hint}")


def refuse_unknown_classes(held: ScanResult, classes: Sequence[str], where: str) -> None:
    """Raises DataError if a held-out class has no training images."""
    counts = Counter(name for names in held.labels for name in names)
    unknown = {name: count for name, count in counts.items() if name not in classes}
    if unknown:
        name, count = min(unknown.items())
        raise DataError(
            f"{where} has a class '{name}' ({count} images) that the training images do not "
            f"have; {closest_class(name, classes)} Rename or remove it."
        )


def unknown_class(source: str | Path, name: str, classes: Sequence[str]) -> DataError:
    """Make the sentence about a class that the model does not know."""
    return DataError(
        f"{source} has a class '{name}' that the model does not know; "
        f"{closest_class(name, classes)} Rename or remove that class, train again "
        f"with it, or leave its images out with --allow-unknown."
    )


def refuse_nothing_to_train_on(layout: DataLayout, options: SourceOptions, source: str) -> None:
    """Raises DataError for held-out images alone, or a column of labels where no table is."""
    if options.label_column and not isinstance(layout.train or layout.held_out, Table):
        raise DataError(
            f"data.label_column={options.label_column}: {source} is no table "
            f"({layout.kind}), and none with such a column is in it."
        )
    if layout.train is None:
        if isinstance(layout.held_out, ClassFolders):
            raise DataError(
                f"{source} has {layout.held_name}/ but no train/; add the training images."
            )
        raise DataError(
            f"{source} has images of {layout.held_name} and none to train on; add some."
        )


def refuse_bands(banded: Problem | None, where: str) -> None:
    """Raises DataError for TIFFs of which nobody has chosen three bands."""
    if banded is not None:
        raise DataError(
            f"{where} holds pictures that have to be told which of their bands to show, for "
            f"example {banded.path}. {banded.reason} Choose three, counted from 1: "
            f"--set images.bands=[3,2,1] (red, green, blue), or write three as an RGB picture."
        )


def refuse_many_unreadable(
    problems: Sequence[Problem], readable: int, root: str, allowed: bool
) -> None:
    """Raises DataError if more than 1 % of the files, and more than one, cannot be read."""
    bad = [problem for problem in problems if problem.code in LEFT_OUT]
    if allowed or len(bad) < 2 or len(bad) <= _UNREADABLE * (readable + len(bad)):
        return
    examples = "; ".join(f"{problem.path}: {problem.reason}" for problem in bad[:3])
    raise DataError(
        f"{len(bad)} of {readable + len(bad)} files under {root} cannot be read, more than 1 %. "
        f"Remove them, or go on without them: --set data.allow_unreadable=true. "
        f"For example {examples}"
    )


def refuse_unscorable(train: Split, val: Split, classes: Sequence[str], root: str) -> None:
    """Raises DataError for labels that could not be learnt, or of which no score could be told.

    Otherwise the first validation would, after all that was learnt until then.
    """
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise DataError(
            f"{root} names {len(twice)} classes more than once, for example '{twice[0]}'; give "
            f"each a name of its own."
        )
    for split in (train, val):
        which = "training" if split is train else "held-out"
        if split.labels.ndim > 1:
            if not split.labels.any():
                raise DataError(
                    f"None of the {len(split):,} {which} images of {root} has a label, so nothing "
                    f"could be {'learnt' if split is train else 'scored'}. Label some of them, or "
                    f"divide the images in another way."
                )
            continue
        missing = np.flatnonzero(split.labels < 0)
        if len(missing):
            raise DataError(
                f"{len(missing):,} of the {len(split):,} {which} images of {root} have no label, "
                f"for example {split.key(int(missing[0]))}. Label them or leave them out; without "
                f"labels: --recipe masked-patches."
            )


def never_held_out(
    val: Split, classes: Sequence[str], trained: Sequence[str], remarks: Iterable[Problem]
) -> list[Problem]:
    """Remarks on classes that no held-out image has, beside those that `remarks` names.

    `classes` are the columns of multi-label labels, `trained` those that training images have.
    """
    if val.labels.ndim == 1:  # `missing` and `too_small` name them
        return []
    named = {Path(remark.path).name for remark in remarks if remark.code in ("unmatched", "small")}
    counts = dict(zip(classes, val.labels.sum(axis=0).tolist(), strict=True))
    reason = "No held-out image has this class: it is not evaluated."
    absent = [name for name in trained if not counts[name] and name not in named]
    return [Problem(name, reason, "unmatched") for name in absent]


def empty_classes(scanned: ScanResult, where: str, root: str) -> list[Problem]:
    """Remarks on classes without an image that can be read."""
    remarks = []
    for name in scanned.empty_classes:
        reason = "It holds no readable image; it is not a class."
        folder = Path(where) / name
        if folder.is_dir():
            reason = f"{reason} {other_files(folder).sentence()}".rstrip()
        remarks.append(Problem(_inside(where, root) + name, reason, "empty"))
    return remarks


def too_small(scanned: ScanResult, where: str, root: str) -> list[Problem]:
    """Remarks on classes with a single image, which leaves none to hold out."""
    reason = "The class has one image; it is used for training and not held out."
    counts = Counter(name for names in scanned.labels for name in names)
    single = sorted(name for name in counts if counts[name] == 1)
    return [Problem(_inside(where, root) + name, reason, "small") for name in single]


def divided_copies(
    scanned: ScanResult, where: str, group_ids: np.ndarray, train: np.ndarray, val: np.ndarray
) -> list[Problem]:
    """Remarks on classes of copies of one picture, which had to be divided all the same."""
    both = np.isin(group_ids[val], group_ids[train])
    names = {name for row in val[both] for name in scanned.labels[row] or [where]}
    reason = "All its images are copies of one another, also those that are held out."
    return [Problem(name, reason, "leakage") for name in sorted(names)]


def missing(held: ScanResult, classes: Sequence[str], where: str, root: str) -> list[Problem]:
    """Remarks on classes without a held-out image, of which no accuracy is known."""
    reason = f"The class has training images and none in {where}: it is not evaluated."
    absent = sorted(set(classes) - set(held.classes))
    return [Problem(_inside(where, root) + name, reason, "unmatched") for name in absent]


def decided(remarks: Iterable[Problem], parts: Sequence[ScanResult]) -> Iterator[Decision]:
    """Says what the remarks on a source, and unusual pictures in it, came to: a line for a kind."""
    paths: dict[Code, list[str]] = {}
    for remark in remarks:
        paths.setdefault(remark.code, []).append(remark.path)
    for code, (topic, what) in _CHOSEN.items():
        if code in paths:
            yield Decision(topic, f"{what} ({len(paths[code]):,}): {listed(paths[code], 3)}.")
    headers = [header for part in parts for header in part.headers if header is not None]
    shown = [header for header in headers if not header.bands]  # by a range of their own
    counts = Counter(code for header in shown for code in header.remarks)
    counts["transparent"] -= len(paths.get("unseen", ()))
    for code, what in _UNUSUAL.items():
        if counts[code] > 0:
            pictures = (
                "1 picture is" if counts[code] == 1 else f"{counts[code]:,} pictures are each"
            )
            yield Decision("pixels", f"{pictures} {what}.")


def _inside(where: str, root: str) -> str:
    """'train/' for root/train, '' for the root itself and for what is no folder."""
    folder = Path(where)
    above = Path(root)
    if not folder.is_dir() or folder == above or not folder.is_relative_to(above):
        return ""
    return f"{folder.relative_to(above).as_posix()}/"
