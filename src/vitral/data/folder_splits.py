"""Find the parts of a split among the folders of a source, by their names and by what is inside.

    train/CLASS/ val/CLASS/            seg_train/seg_train/CLASS/ seg_test/seg_test/CLASS/
    train_images/CLASS/                train/CLASS/ test/ (pictures that nobody has labelled)

A class may be called train or test as well: folders are parts of a split where they hold class
folders. Where another part holds pictures and no class folders, it has no labels; it is not used.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitral.data import names
from vitral.data.decisions import Decision
from vitral.data.folders import (
    ClassFolders,
    is_passed_over,
    named_like_an_image,
    relative,
    visible_folders,
)
from vitral.data.names import HeldOutName, Part
from vitral.data.sources import DataLayout, Problem, SourceOptions
from vitral.data.unpacked_twice import Repeated, repeated
from vitral.wording import listed

Inside = Literal["classes", "pictures", "nothing"]

_OF_PICTURES = frozenset(
    {"images", "image", "imgs", "img", "pictures", "photos", "data", "dataset"}
)
_BESIDE = "The folder stands beside the split and is not read."


@dataclass(frozen=True, slots=True)
class FolderSplit:
    """The parts of a split among the folders of a source.

    Attributes:
        train, held_out: folders of class folders; None where there is no such part.
        held_name: what the held-out one is called.
        unlabelled: parts whose pictures nobody has labelled.
        beside: the other folders, where there is a split.
    """

    train: Path | None = None
    held_out: Path | None = None
    held_name: HeldOutName = "val"
    unlabelled: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()


def layout(source: str, options: SourceOptions) -> DataLayout | None:
    """Gives the layout of a folder; None where there is no folder."""
    root = Path(source)
    if not root.is_dir():
        return None
    if not options.labelled:
        return _unlabelled_layout(root, source)
    inner = root if options.nested else descended(root)
    if not options.nested and (known := _of_inner_parts(inner, source)):
        return known
    split = find(inner)
    parts = [part for part in (split.train, split.held_out) if part is not None]
    kind = "class folders" if parts else "class folders without splits"
    beside = tuple(Problem(f"{relative(one, root)}/", _BESIDE, "beside") for one in split.beside)
    train = held_out = None
    again: list[Repeated] = [] if inner == root else repeated(root)
    if split.train is not None or not parts:
        train = class_folders(split.train or inner, root, again, beside, nested=options.nested)
    if split.held_out is not None:
        others = () if train else beside
        held_out = class_folders(split.held_out, root, again, others, nested=options.nested)
    decisions = (
        Decision("labels", "The label of an image is the name of its class folder."),
        *_chosen(root, inner, split),
        *(said_of(one, root) for one in again),
    )
    return DataLayout(kind, train, held_out, split.held_name, source, decisions=decisions)


def class_folders(
    folder: Path,
    root: Path,
    again: list[Repeated],
    beside: tuple[Problem, ...] = (),
    *,
    nested: bool = False,
) -> ClassFolders:
    """Makes the part of a source that a folder is, without the copies in it; adds them to again."""
    own = repeated(folder)
    again += (one for one in own if one not in again)
    copies = tuple(one.folder for one in own)
    return ClassFolders(folder, root, beside, nested=nested, repeated=copies)


def said_of(again: Repeated, root: Path) -> Decision:
    """Says that a folder holds again what is read elsewhere."""
    there = relative(again.original, root)
    where = "the class folders beside it" if again.folder.parent == again.original else f"{there}/"
    return Decision(
        "files",
        f"{relative(again.folder, root)}/ holds the pictures of {where} again ({again.same:,} of "
        f"its {again.count:,}, by name, size and content), as an archive does that was unpacked "
        f"twice; it is no class and is not read.",
    )


def _of_inner_parts(root: Path, source: str) -> DataLayout | None:
    """Class folders that each hold the parts of the split: cat/train/, cat/test/, dog/train/."""
    children = [child for child in visible_folders(root) if holds(child)]
    parts: set[Part] = set()
    others: set[str] = set()
    for child in children:
        inner = {one.name: names.part_of(one.name) for one in visible_folders(child) if holds(one)}
        if "train" not in inner.values() or _has_loose_pictures(child):
            return None
        parts |= {part for part in inner.values() if part is not None}
        others |= {name for name, part in inner.items() if part is None}
    held: HeldOutName = "val" if "val" in parts else "test"
    if len(children) < 2 or held not in parts:
        return None
    said = [
        Decision("labels", "The label of an image is the name of its class folder."),
        Decision(
            "layout", f"Each class folder holds the parts of the split: {listed(sorted(parts))}."
        ),
    ]
    if others:
        said.append(
            Decision("files", f"Other folders in them are not used: {listed(sorted(others))}.")
        )
    if {"val", "test"} <= parts:
        said.append(Decision("files", "The images of test/ in each class folder are not used."))
    train = ClassFolders(root, Path(source), part="train")
    held_out = ClassFolders(root, Path(source), part=held)
    return DataLayout("class folders", train, held_out, held, source, decisions=tuple(said))


def _unlabelled_layout(root: Path, source: str) -> DataLayout:
    """Pictures anywhere below train and val, or anywhere below the folder."""
    children = visible_folders(root)
    train, held_out, held_name = names.divided({child.name: child for child in children})
    if train is None and not all(names.part_of(child.name) for child in children):
        held_out = None
    parts = [part for part in (train, held_out) if part is not None]
    beside = tuple(
        Problem(f"{child.name}/", _BESIDE, "beside")
        for child in children
        if parts and child not in parts
    )
    kind = "folders of images" if parts else "folders of images without splits"
    return DataLayout(
        kind,
        ClassFolders(train or root, root, beside, labelled=False) if train or not parts else None,
        ClassFolders(held_out, root, labelled=False) if held_out else None,
        held_name,
        source,
    )


def _chosen(root: Path, inner: Path, split: FolderSplit) -> Iterator[Decision]:
    """What was chosen where the names are not the usual ones, or pictures have no labels."""
    if inner != root:
        yield Decision("layout", f"The folders of {relative(inner, root)}/ are read.")
    parts = [part for part in (split.train, split.held_out) if part is not None]
    usual = (*names.TRAIN, *names.HELD_OUT)
    if any(part.parent != root or part.name.casefold() not in usual for part in parts):
        called = " and ".join(f"{relative(part, root)}/" for part in parts)
        classes = listed(child.name for child in visible_folders(parts[0])) or "none"
        yield Decision("layout", f"The parts of the split are {called}; the classes are {classes}.")
    for part in split.unlabelled:
        yield without_labels(part, root)
    for part in split.beside:
        if names.part_of(part.name, alone=False) in ("val", "test"):
            yield Decision(
                "files",
                f"The images of {relative(part, root)}/ are not used here; the model can be scored "
                f"on them: vitral evaluate RUN {part}",
            )


def without_labels(part: Path, root: Path) -> Decision:
    """Says that a part of a split has pictures and no labels."""
    return Decision(
        "files",
        f"{relative(part, root)}/ has images without labels and is not used; a model can name "
        f"their classes: vitral predict RUN {part}",
    )


def descended(root: Path) -> Path:
    """Gives the folder inside that holds everything: flowers/flowers/, images/ beside lists."""
    while True:
        children = visible_folders(root)
        if any(names.part_of(child.name) for child in children) or _has_loose_pictures(root):
            return root
        copies = {one.folder for one in repeated(root)}
        whole = (child for child in children if child not in copies and holds(child))
        holding = list(itertools.islice(whole, 2))
        if len(holding) != 1 or inside(holding[0]) != "classes":
            return root
        (child,) = holding
        again = bool(copies) or names.key(child.name) == names.key(root.absolute().name)
        if not (again or child.name.casefold() in _OF_PICTURES or find(child).train):
            return root
        root = child


def find(root: Path) -> FolderSplit:
    """Finds the parts of a split directly below a folder."""
    children = visible_folders(root)
    spoken = {child: names.part_of(child.name, alone=False) for child in children}
    plain = {child: names.part_of(child.name) for child in children}
    if not any(spoken.values()):
        return FolderSplit()
    inner = {child: unwrapped(child) for child in children if spoken[child]}
    kinds = {child: inside(folder) for child, folder in inner.items()}
    trains = [c for c in children if spoken[c] == "train" and kinds[c] == "classes"]
    trains.sort(key=lambda c: (plain[c] is None, c.name.casefold() not in names.TRAIN, c.name))
    if not trains:
        return _without_classes(spoken, plain, inner)
    train = trains[0]
    about = names.without_part(train.name)
    others = [c for c in inner if c != train and (plain[c] or names.without_part(c.name) == about)]
    others.sort(key=lambda c: c.name.casefold() not in names.HELD_OUT)
    if not others and (plain[train] is None or _is_a_class(train, children, inner[train])):
        return FolderSplit()
    held: dict[Part, Path] = {}
    unlabelled = []
    for child in others:
        part = spoken[child]
        if part not in ("val", "test"):
            if part == "unlabelled" and kinds[child] != "nothing":
                unlabelled.append(child)
        elif has_labels(inner[child], inner[train]):
            held.setdefault(part, child)
        elif kinds[child] != "nothing":
            unlabelled.append(child)
    held_out = held.get("val", held.get("test"))
    used = (train, held_out, *unlabelled)
    return FolderSplit(
        inner[train],
        None if held_out is None else inner[held_out],
        "val" if held_out is None else names.held_out_name(held_out.name),
        tuple(unlabelled),
        tuple(child for child in children if child not in used),
    )


def _without_classes(
    spoken: dict[Path, Part | None], plain: dict[Path, Part | None], inner: dict[Path, Path]
) -> FolderSplit:
    """Parts of which none to train on holds class folders: a split if nothing else is there.

    Training refuses it then. Otherwise they are classes: one may be called test.
    """
    parts: dict[tuple[str, ...], set[Part | None]] = {}
    for child in inner:
        parts.setdefault(names.without_part(child.name), set()).add(spoken[child])
    pairs = [about for about, own in parts.items() if "train" in own and own & {"val", "test"}]
    others = [child for child in spoken if child not in inner and holds(child)]
    # of classes one may be called train or test, and both among many
    if not all(plain.values()) and (not pairs or (pairs == [()] and len(others) > 1)):
        return FolderSplit()
    by_part: dict[Part, Path] = {}
    usual = (*names.TRAIN, *names.HELD_OUT)
    for child in sorted(inner, key=lambda c: c.name.casefold() not in usual):
        part = spoken[child]
        if part is not None:
            by_part.setdefault(part, child)
    train = by_part.get("train")
    held_out = by_part.get("val", by_part.get("test"))
    used = (train, held_out)
    return FolderSplit(
        None if train is None else inner[train],
        None if held_out is None else inner[held_out],
        "val" if held_out is None else names.held_out_name(held_out.name),
        beside=tuple(child for child in inner if child not in used),
    )


def _is_a_class(train: Path, children: Sequence[Path], inner: Path) -> bool:
    """Whether other folders hold the same folders as train: then it is a class among classes."""
    own = {child.name for child in visible_folders(inner)}
    others = (visible_folders(child) for child in children if child != train)
    return any(own & {child.name for child in other} for other in others)


def has_labels(held: Path, train: Path) -> bool:
    """Tells whether a held-out part has class folders, not one of pictures without labels."""
    own = {child.name for child in visible_folders(held)}
    kind = inside(held)
    if kind != "classes":
        return kind == "nothing" and bool(own)
    if {name.casefold() for name in own} <= names.NO_CLASSES:
        return False
    if own & {child.name for child in visible_folders(train)}:
        return True
    return not all(name.casefold() in names.UNKNOWN_CLASSES for name in own)


def unwrapped(folder: Path) -> Path:
    """Gives the folder of the same meaning inside: seg_train/seg_train/, train/images/."""
    while not _has_loose_pictures(folder):
        children = visible_folders(folder)
        if len(children) != 1:
            break
        (child,) = children
        again = names.key(child.name) == names.key(folder.name)
        part = names.part_of(child.name)
        same = part is not None and part == names.part_of(folder.name, alone=False)
        wrapping = child.name.casefold() in _OF_PICTURES and inside(child) == "classes"
        if not (again or same or wrapping):
            break
        folder = child
    return folder


def inside(folder: Path) -> Inside:
    """Says what a folder holds: folders of pictures or other files, pictures alone, or neither."""
    children = visible_folders(folder)
    if any(holds(child) for child in children):
        return "classes"
    if _has_loose_pictures(folder):
        return "pictures"
    return "classes" if any(holds(child, pictures=False) for child in children) else "nothing"


def _has_loose_pictures(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(named_like_an_image(e.name) and not is_passed_over(e.name) for e in entries)


def holds(folder: Path, *, pictures: bool = True) -> bool:
    """Tells whether a picture lies anywhere below a folder; with pictures=False, any file."""
    waiting = [str(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:  # a folder of a million pictures is not listed for one of them
                if is_passed_over(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif named_like_an_image(entry.name) or not pictures:
                    return True
    return False


def files_below(folder: Path) -> Iterator[str]:
    """Yields the name of every file below a folder that is neither hidden nor the system's."""
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_passed_over(name)]
        yield from (name for name in files if not is_passed_over(name))
