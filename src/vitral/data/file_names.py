"""Read labels from the names of pictures that lie in one folder.

    train/cat.0.jpg train/dog.12.jpg        Abyssinian_12.jpg american_bulldog_7.jpg
    0001_frog.png 0002_ship.png             n01440764_10026.JPEG

A name is a class and a number. The names are those of classes where nearly all are of this kind,
more than one class comes out, and each comes again; what a camera writes (IMG_0001.jpg), parts of
a split (train_1.jpg) and names that differ in numbers alone (patient12_3.png) say no class.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitral.catalog import wordnet
from vitral.data import folder_splits, names
from vitral.data.decisions import Decision
from vitral.data.folders import (
    is_passed_over,
    named_like_an_image,
    read_file_header,
    relative,
    visible_folders,
    walk,
)
from vitral.data.sources import DataLayout, Files, Problem, ScanResult, SourceOptions
from vitral.errors import DataError
from vitral.wording import listed

_PATTERNS = (
    re.compile(r"(?P<label>.*\w)[\s._-]+\(?\d+\)?"),  # cat.0, dog_12, cat (3)
    re.compile(r"\d+[\s._-]+(?P<label>.*\w)"),  # 0001_frog
    re.compile(r"(?P<label>[^\W\d]{2,})\(?\d+\)?"),  # cat12
)
_SHARE = 0.95  # of the pictures have such a name
_EACH = 2  # pictures a class, on the average at least this many times two
_NO_CLASS = frozenset(  # words that cameras, phones and programs begin a name with
    {"img", "image", "images", "pic", "picture", "photo", "foto", "bild", "dsc", "dscn", "dscf"}
    | {"pxl", "mvimg", "vid", "wa", "whatsapp", "screenshot", "screen", "shot", "scan", "frame"}
    | {"frames", "file", "sample", "signal", "capture", "snapshot", "untitled", "unnamed", "copy"}
    | {"download", "page", "p", "gopro", "gopr", "dji", "cam", "camera", "video", "view", "at"}
    | {"left", "right", "mask", "id", "n", "x", "y", "z", "t", "im", "jpeg", "jpg", "png", "patch"}
    | {"tile", "crop", "slice", "data", "isic", "aug", "augmented", "original", "test", "train"}
)


@dataclass(frozen=True, slots=True)
class NamedPictures:
    """Pictures in one folder of which the names say the classes.

    Attributes:
        folder, root: of the pictures, and of the source, to which names are relative.
        pattern: which of _PATTERNS their names follow.
    """

    folder: Path
    root: Path
    pattern: int

    def __str__(self) -> str:
        return str(self.folder)

    def scan(self) -> ScanResult:
        """Lists every image that can be read and has a label in its name."""
        scanned = ScanResult(Files(str(self.root), ()))
        without = []
        for entry in walk(self.folder, scanned.problems, self.root):
            name = relative(Path(entry.path), self.root)
            try:
                header = read_file_header(entry.path)
                status = entry.stat()
            except DataError as error:
                if named_like_an_image(entry.name):
                    scanned.problems.append(Problem.left_out(name, error))
                continue
            label = _label(entry.name, self.pattern)
            if label:
                scanned.add(name, (label,), status.st_size, header, status.st_mtime_ns)
            else:
                without.append(name)
        if without:
            kind = "images have" if len(without) > 1 else "image has"
            reason = f"{len(without)} {kind} no class in the name: not used."
            scanned.problems.append(Problem(without[0], reason, "beside"))
        scanned.reader = Files(str(self.root), tuple(scanned.names))
        return scanned


def layout(source: str, options: SourceOptions) -> DataLayout | None:
    """Gives the layout of pictures with a class in their names; None where there are none."""
    root = Path(source)
    if not root.is_dir() or not options.labelled or options.nested:
        return None
    folder = root
    while folder_splits.inside(folder) == "classes":
        holding = [child for child in visible_folders(folder) if folder_splits.holds(child)]
        if len(holding) != 1 or names.part_of(holding[0].name) is not None:
            break
        (folder,) = holding
    if folder_splits.inside(folder) == "pictures":
        pattern = _pattern(folder)
        if pattern is None:
            return None
        whole = NamedPictures(folder, root, pattern)
        kind = "images with a class in each name"
        return DataLayout(kind, whole, None, "val", source, decisions=_said(whole))
    return _of_parts(folder, root, source)


def _of_parts(folder: Path, root: Path, source: str) -> DataLayout | None:
    """The parts of a split, of which the one to train on has classes in its names."""
    children = {one: names.part_of(one.name, alone=False) for one in visible_folders(folder)}
    own = {one: folder_splits.unwrapped(one) for one, part in children.items() if part}
    flat = [one for one, inner in own.items() if folder_splits.inside(inner) == "pictures"]
    trains = [one for one in flat if children[one] == "train"]
    if len(trains) != 1 or any(folder_splits.inside(one) == "classes" for one in own.values()):
        return None
    pattern = _pattern(own[trains[0]])
    if pattern is None:
        return None
    train = NamedPictures(own[trains[0]], root, pattern)
    classes = _classes(train)
    said = list(_said(train))
    held: dict[names.Part, NamedPictures] = {}
    for one in flat:
        part = children[one]
        if part not in ("val", "test"):
            continue
        found = NamedPictures(own[one], root, pattern)
        if set(_classes(found)) and set(_classes(found)) <= set(classes):
            held.setdefault(part, found)
        else:
            said.append(folder_splits.without_labels(one, root))
    held_out = held.get("val", held.get("test"))
    held_name: names.HeldOutName = "test" if "test" in held and "val" not in held else "val"
    kind = "images with a class in each name"
    return DataLayout(kind, train, held_out, held_name, source, decisions=tuple(said))


def _said(pictures: NamedPictures) -> tuple[Decision, ...]:
    classes = _classes(pictures)
    first = next(name for name in _files(pictures.folder) if _label(name, pictures.pattern))
    where = "" if pictures.folder == pictures.root else f" of {pictures.folder.name}/"
    count = f"{len(classes):,} classes ({listed(sorted(classes), 4)})"
    sentence = (
        f"The labels are those in the names of the files{where}: {first} is "
        f"'{_label(first, pictures.pattern)}', {count} in all. Where that is wrong, write a "
        f"train.csv (path,label)."
    )
    return (Decision("labels", sentence),)


def _classes(pictures: NamedPictures) -> Counter[str]:
    labels = (_label(name, pictures.pattern) for name in _files(pictures.folder))
    return Counter(label for label in labels if label)


def _files(folder: Path) -> list[str]:
    """The names of the pictures directly in a folder, sorted."""
    return sorted(
        child.name
        for child in folder.iterdir()
        if named_like_an_image(child.name) and not is_passed_over(child.name)
    )


def _label(name: str, pattern: int) -> str:
    """The class in the name of a file; '' for none."""
    match = _PATTERNS[pattern].fullmatch(Path(name).stem)
    if match is None or not any(char.isalpha() for char in match["label"]):
        return ""
    return match["label"].strip(" ._-")


def _pattern(folder: Path) -> int | None:
    """The pattern that the names of the pictures of a folder follow; None for none."""
    files = _files(folder)
    for number in range(len(_PATTERNS)):
        labels = [_label(name, number) for name in files]
        if _are_classes([label for label in labels if label], len(files)):
            return number
    return None


def _are_classes(labels: Sequence[str], count: int) -> bool:
    """Whether these labels, of so many names, are classes."""
    counts = Counter(labels)
    if len(counts) < 2 or len(labels) < _SHARE * count or min(counts.values()) < _EACH:
        return False
    if len(labels) < 2 * _EACH * len(counts):
        return False
    if all(map(wordnet.is_id, counts)):
        return True
    plain = {re.sub(r"[\W\d_]+", "", label).casefold() for label in counts}
    return len(plain) == len(counts) and not any(map(_says_nothing, counts))


def _says_nothing(label: str) -> bool:
    words: Iterable[str] = names.words_of(label)
    return all(word in _NO_CLASS or names.part_of(word) is not None for word in words)
