"""Read folders of images as people make them: what counts as a split, a class, an image.

Nothing here writes. Hidden and system files are passed over, a linked folder that leads back up
is not entered, a file reached twice is read once, and every file is looked at (its header and
its end) so that what cannot be read is named before training.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitral.data.decisions import Decision
from vitral.data.headers import read_header
from vitral.data.names import Part, part_of
from vitral.data.sources import (
    Code,
    Files,
    Header,
    Problem,
    ScanResult,
)
from vitral.errors import DataError
from vitral.specs.tree import ClassTree
from vitral.wording import listed

# What stands for a picture in a folder. Not every extension that Pillow knows: beside pictures lie
# depth maps (.pfm), point clouds (.pcd) and a camera's raw files, which are no fault.
_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".avif", ".heic", ".heif", ".hif", ".heics", ".jp2", ".j2k", ".j2c"),
    *(".jpc", ".jpf", ".jpx", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".icns"),
    *(".psd", ".dds", ".blp", ".qoi", ".pcx", ".sgi", ".eps", ".svg"),
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
_HIDDEN = "It is hidden or belongs to the system, and was passed over."


@dataclass(frozen=True, slots=True)
class ClassFolders:
    """A folder of class folders, or of images in any folders; names are relative to the root.

    Attributes:
        folder, root: those.
        beside: remarks on the folders that are neither it nor another part of the split.
        labelled: whether folders are classes; otherwise images may lie anywhere below the folder.
        nested: whether every folder that holds images is a class, and those above it are groups.
        part: of a split, where each class folder holds a folder of it: cat/train/, dog/train/.
        repeated: folders that hold again what is read elsewhere, and are no classes.
    """

    folder: Path
    root: Path
    beside: tuple[Problem, ...] = ()
    labelled: bool = True
    nested: bool = False
    part: Part | None = None
    repeated: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return str(self.folder) if self.part is None else f"{self.folder}@{self.part}"

    def scan(self) -> ScanResult:
        """Lists every image that can be read."""
        scanned = ScanResult(Files(str(self.root), ()))
        scanned.problems += self.beside
        if self.labelled:
            self._scan_classes(scanned)
            self._remark_nested(scanned)
        else:
            self._scan_files(self.folder, None, scanned)
        scanned.reader = Files(str(self.root), tuple(scanned.names))
        return scanned

    def _scan_classes(self, scanned: ScanResult) -> None:
        twins: dict[str, list[Path]] = {}
        _remark_passed_over(self.folder, self.root, scanned.problems)
        scanned.problems += self._stray()
        for child in visible_folders(self.folder):
            if child in self.repeated:
                continue
            twins.setdefault(unicodedata.normalize("NFC", child.name), []).append(child)
        for name in sorted(twins):
            if len(twins[name]) > 1:
                scanned.problems.append(
                    Problem(
                        relative(twins[name][0], self.root),
                        f"The class name '{name}' is written in two ways (Unicode NFC and NFD); "
                        f"its {len(twins[name])} folders are taken as one class.",
                        "twins",
                    )
                )
            before = len(scanned.names)
            for class_folder in twins[name]:
                for folder in self._of_part(class_folder):
                    self._scan_files(folder, name, scanned)
            if len(scanned.names) == before:
                scanned.empty_classes.append(name)
        scanned.problems += _similar_names(twins, self.folder, self.root)

    def _of_part(self, class_folder: Path) -> list[Path]:
        """The folders of a class that are read: itself, or those of one part of a split."""
        if self.part is None:
            return [class_folder]
        inner = visible_folders(class_folder)
        return [folder for folder in inner if part_of(folder.name) == self.part]

    def _remark_nested(self, scanned: ScanResult) -> None:
        """Say what folders within class folders mean, or make the tree that they are."""
        top = len(self.folder.relative_to(self.root).parts)
        ways = {name.rpartition("/")[0]: None for name in scanned.names}
        deepest = top if self.part is None else top + 1
        within = [way for way in ways if way.count("/") > deepest]
        if self.nested:
            scanned.tree = _tree([way.split("/")[top:] for way in ways])
        elif within and (same := self._same_inside(ways, top)):
            sentence = (
                f"Every class folder holds the same folders ({listed(same, 3)}); if those are the "
                f"classes, give one of the folders above them, such as "
                f"{self.folder / within[0].split('/')[top]}."
            )
            scanned.decisions.append(Decision("labels", sentence))
        elif within:
            sentence = (
                f"Images in folders within a class folder ({listed(within, 3)}) are of that class; "
                f"with --tree folders each of these folders is a class, and those above it groups."
            )
            scanned.decisions.append(Decision("labels", sentence))

    def _same_inside(self, ways: Iterable[str], top: int) -> list[str]:
        """The folders within class folders, where they are the same in every class."""
        inside: dict[str, set[str]] = {}
        for way in ways:
            names = way.split("/")[top:]
            inside.setdefault(names[0], set()).update(names[1:2])
        first, *others = inside.values()
        alike = len(first) > 1 and others and all(other == first for other in others)
        return sorted(first) if alike else []

    def _stray(self) -> Iterator[Problem]:
        """Images in no class, which a person may have meant to be used."""
        stray = [c.name for c in _children(self.folder) if _is_stray(c)]
        if stray:
            kind = "images stand" if len(stray) > 1 else "image stands"
            reason = f"{len(stray)} {kind} beside the class folders, in no class: not used."
            yield Problem(relative(self.folder / stray[0], self.root), reason, "beside")

    def _scan_files(self, folder: Path, label: str | None, scanned: ScanResult) -> None:
        """Every image below a folder, of this class, or called as the folder it is in."""
        for entry in walk(folder, scanned.problems, self.root):
            name = relative(Path(entry.path), self.root)
            try:
                header = read_file_header(entry.path)
                status = entry.stat()
            except DataError as error:
                if named_like_an_image(entry.name):  # a note or a list beside them is no fault
                    scanned.problems.append(Problem.left_out(name, error))
                continue
            above = Path(entry.path).parent
            own = label if label or above == folder else above.name
            if label and self.nested:
                own = unicodedata.normalize("NFC", above.name)
            labels = (own,) if own else ()
            scanned.add(name, labels, status.st_size, header, status.st_mtime_ns)


def _tree(ways: Iterable[Sequence[str]]) -> ClassTree:
    """The groups of class folders, by the names from the top one down to each.

    Raises DataError for two folders of one name in different places.
    """
    parents: dict[str, str] = {}
    places: dict[str, str] = {}
    for way in ways:
        names = [unicodedata.normalize("NFC", part) for part in way]
        for depth, name in enumerate(names):
            place = "/".join(names[: depth + 1])
            if places.setdefault(name, place) != place:
                raise DataError(
                    f"Two folders are called '{name}', {places[name]} and {place}, and a class or "
                    f"a group has one place in a tree. Rename one, or leave --tree folders out."
                )
            if depth:
                parents[name] = names[depth - 1]
    return ClassTree(parents=parents)


def visible_folders(folder: Path) -> list[Path]:
    """Lists the sub-folders that are neither hidden nor the system's, sorted by name."""
    return [c for c in _children(folder) if not is_passed_over(c.name) and c.is_dir()]


def _is_stray(path: Path) -> bool:
    return not is_passed_over(path.name) and named_like_an_image(path.name) and path.is_file()


def _broken_link(path: Path, root: Path) -> Problem:
    """An image is missing where the link has the name of one; any other is passed over."""
    code: Code = "unreadable" if named_like_an_image(path.name) else "loop"
    return Problem(relative(path, root), "The link leads nowhere.", code)


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be opened ({error.strerror or error}).") from error


def walk(folder: Path, problems: list[Problem], root: Path) -> Iterator[os.DirEntry[str]]:
    """Yields every file below a folder once, sorted; passes over hidden files and links back up."""
    seen: set[tuple[int, int]] = set()
    linked: list[os.DirEntry[str]] = []
    # a class folder that is itself a link to the root is a loop too, though no parent of its target
    way = [path for path in folder.absolute().parents if path.is_relative_to(root.absolute())]
    above = {_identity(path.stat()) for path in (*folder.resolve().parents, *way)}
    for entry in _entries(str(folder), above, seen, problems, root):
        if entry.is_symlink():
            linked.append(entry)
        elif entry.is_file():
            seen.add(_identity(entry.stat()))
            yield entry
    for entry in linked:  # after the files themselves, so that the link is the one left out
        if not Path(entry.path).exists():
            problems.append(_broken_link(Path(entry.path), root))
        elif entry.is_file() and _identity(entry.stat()) not in seen:
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
        problems.append(Problem(relative(Path(path), root), reason, "loop"))
        return
    seen.add(here)
    try:
        with os.scandir(path) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        reason = f"The folder cannot be opened ({error.strerror or error})."
        problems.append(Problem(relative(Path(path), root), reason))
        return
    for entry in entries:
        if is_passed_over(entry.name):
            problems.append(Problem(relative(Path(entry.path), root), _HIDDEN, "hidden"))
        elif _is_folder(entry):
            yield from _entries(entry.path, above | {here}, seen, problems, root)
        else:
            yield entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def named_like_an_image(name: str) -> bool:
    """Tells whether the extension promises an image; the content decides in the end."""
    return name.lower().endswith(_SUFFIXES)


def read_file_header(path: str | Path) -> Header:
    """Reads the header of a file; DataError, with the reason, if it is no image or ends early."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - 10 × faster, per file
            return read_header(file, str(path))
    except OSError as error:
        raise DataError(f"The file cannot be read ({error.strerror or error}).") from error


def relative(path: Path, root: Path) -> str:
    """Gives the path below the root, with forward slashes."""
    return path.relative_to(root).as_posix()


def _remark_passed_over(folder: Path, root: Path, problems: list[Problem]) -> None:
    """Remark hidden and system files, and broken links, that stand directly in a folder."""
    for child in _children(folder):
        if is_passed_over(child.name):
            problems.append(Problem(relative(child, root), _HIDDEN, "hidden"))
        elif child.is_symlink() and not child.exists():
            problems.append(_broken_link(child, root))


def _similar_names(names: Iterable[str], folder: Path, root: Path) -> list[Problem]:
    """Class folders of which the names differ in letter case alone: 'a' and 'A' may be meant."""
    spellings = Counter(name.casefold() for name in names)
    reason = "Another class folder differs in upper and lower case alone; they are two classes."
    return [
        Problem(relative(folder / name, root), reason, "similar-names")
        for name in names
        if spellings[name.casefold()] > 1
    ]


def is_passed_over(name: str) -> bool:
    """Tells whether a file or folder is hidden or belongs to the system, by its name."""
    return name.startswith(".") or name.lower() in _SYSTEM


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
