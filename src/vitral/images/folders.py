"""Folders of images as people make them: what counts as a split, a class, an image.

Nothing here writes. Hidden and system files are passed over, a linked folder that leads back up
is not entered, a file reached twice is read once, and every file is looked at (its header and
its end) so that what cannot be read is named before training.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from vitral.errors import DataError
from vitral.images.preprocess import decode, formats
from vitral.images.reading import check_pixels, reading
from vitral.images.sources import Problem

TRAIN_NAMES = ("train", "training")
HELD_OUT_NAMES = ("val", "valid", "validation", "test", "testing")

_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico"),
)
_SYSTEM = frozenset(
    name.lower()
    for name in (
        "__MACOSX",
        "Thumbs.db",
        "desktop.ini",
        "@eaDir",
        "$RECYCLE.BIN",
        "Icon\r",
        "System Volume Information",
        "__pycache__",
        "lost+found",
    )
)
_SMALL = 256  # a file that ends within this many bytes of its end marker is complete
_END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


@dataclass(slots=True)
class Found:
    """The readable images of one split.

    Attributes:
        names: paths relative to the root, with forward slashes, in order.
        classes: the class name of each.
        sizes: bytes of each.
        empty: classes whose folder holds no readable image.
        problems: what was left out or merged.
    """

    names: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def split_folders(root: Path) -> tuple[Path | None, Path | None]:
    """(training folder, held-out folder) of a source; None where the names are not there."""
    children = {child.name.lower(): child for child in visible_folders(root)}
    train = next((children[name] for name in TRAIN_NAMES if name in children), None)
    held_out = next((children[name] for name in HELD_OUT_NAMES if name in children), None)
    if train is None and not set(children) <= {*HELD_OUT_NAMES}:
        held_out = None  # a class may be called test
    return train, held_out


def visible_folders(folder: Path) -> list[Path]:
    """The sub-folders that are neither hidden nor the system's, sorted by name."""
    try:
        return sorted(
            child for child in folder.iterdir() if not _passed_over(child.name) and child.is_dir()
        )
    except OSError as error:
        raise DataError(f"{folder} cannot be opened ({error.strerror or error}).") from error


def scan(folder: Path, root: Path) -> Found:
    """Every readable image of the class folders below `folder`, named relative to `root`."""
    found = Found()
    twins: dict[str, list[Path]] = {}
    for child in visible_folders(folder):
        twins.setdefault(unicodedata.normalize("NFC", child.name), []).append(child)
    for name in sorted(twins):
        if len(twins[name]) > 1:
            found.problems.append(
                Problem(
                    _relative(twins[name][0], root),
                    f"The class name '{name}' is written in two ways (Unicode NFC and NFD); "
                    f"its {len(twins[name])} folders are taken as one class.",
                    "twins",
                )
            )
        before = len(found.names)
        for class_folder in twins[name]:
            _scan_class(class_folder, name, root, found)
        if len(found.names) == before:
            found.empty.append(name)
    return found


def walk(folder: Path, problems: list[Problem], root: Path) -> Iterator[os.DirEntry[str]]:
    """Every file below a folder once, sorted; hidden files and links back up are passed over."""
    seen: set[tuple[int, int]] = set()
    linked: list[os.DirEntry[str]] = []
    above = {_identity(path.stat()) for path in folder.resolve().parents}
    for entry in _entries(str(folder), above, seen, problems, root):
        if entry.is_symlink():
            linked.append(entry)
        elif entry.is_file():
            seen.add(_identity(entry.stat()))
            yield entry
    for entry in linked:  # after the files themselves, so that the link is the one left out
        if not Path(entry.path).exists():
            reason = "The link leads nowhere."
            problems.append(Problem(_relative(Path(entry.path), root), reason))
        elif _identity(entry.stat()) not in seen:
            seen.add(_identity(entry.stat()))
            yield entry


def _entries(
    path: str,
    above: set[tuple[int, int]],
    seen: set[tuple[int, int]],
    problems: list[Problem],
    root: Path,
) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder that is not a folder itself; `above` are the folders it is in."""
    here = _identity(Path(path).stat())
    if here in above or here in seen:
        reason = "The link leads to a folder that is read already; it was passed over."
        problems.append(Problem(_relative(Path(path), root), reason, "loop"))
        return
    seen.add(here)
    with os.scandir(path) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        if _passed_over(entry.name):
            continue
        if entry.is_dir():
            yield from _entries(entry.path, above | {here}, seen, problems, root)
        else:
            yield entry


def named_like_an_image(name: str) -> bool:
    """Whether the extension promises an image; the content decides in the end."""
    return name.lower().endswith(_SUFFIXES)


def check_header(path: str | Path) -> None:
    """DataError, with the reason, if a file is no image or ends early; decodes only when unsure.

    The header is read, and the last bytes of JPEG and PNG, where a cut-off file lacks its end
    marker. Some cameras append data of their own, so a missing marker is settled by decoding.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - 10 × faster, per file
            start = file.read(512)
            with reading(start):
                image = Image.open(file, formats=formats())
                check_pixels(image.size)
            marker = _END_MARKERS.get(image.format or "")
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _SMALL))
            if marker and marker not in file.read():
                file.seek(0)
                decode(file.read())
    except OSError as error:
        raise DataError(f"The file cannot be read ({error.strerror or error}).") from error


def _scan_class(folder: Path, name: str, root: Path, found: Found) -> None:
    for entry in walk(folder, found.problems, root):
        try:
            check_header(entry.path)
        except DataError as error:
            if named_like_an_image(entry.name):  # a note or a list beside the images is no fault
                problem = Problem(_relative(Path(entry.path), root), str(error))
                found.problems.append(problem)
            continue
        found.names.append(_relative(Path(entry.path), root))
        found.classes.append(name)
        found.sizes.append(entry.stat().st_size)


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
