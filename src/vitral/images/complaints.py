"""What is wrong with a folder of images, in sentences: what, where, what to do."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vitral.errors import DataError
from vitral.images.folders import Found, named_like_an_image, visible_folders
from vitral.images.sources import Problem

BUILT_IN = ("digits", "shapes")

_UNREADABLE = 0.01  # share of the files beyond which something is wrong with the whole folder


def existing(source: str) -> Path:
    """The folder that was named; DataError, with the closest name, if it is not there."""
    path = Path(source)
    if not path.exists():
        raise DataError(f"{source} does not exist; {sibling(path)}")
    if not path.is_dir():
        raise DataError(f"{source} is a file; name a folder that holds one folder for each class.")
    return path


def sibling(path: Path, names: Sequence[str] = BUILT_IN) -> str:
    """'Did you mean …?' with the closest neighbour or one of `names`, or what to check."""
    try:
        neighbours = [child.name for child in path.parent.iterdir()]
    except OSError:
        neighbours = []
    near = difflib.get_close_matches(path.name, [*neighbours, *names], n=1)
    if not near:
        return f"give an existing path{', or one of ' if names else ''}{', '.join(names)}."
    found = near[0] if near[0] in names else str(path.parent / near[0])
    return f"did you mean {found}?"


def closest(name: str, known: Sequence[str]) -> str:
    """'did you mean …?' with the closest of the known names, or what is known."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"it knows {listed(known)}."


def listed(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def refuse_nothing(found: Found, folder: Path) -> None:
    """DataError if no image was found below a folder, or none of them can be read."""
    if found.names:
        return
    unreadable = [problem for problem in found.problems if problem.code == "unreadable"]
    if unreadable:
        raise DataError(
            f"None of the {len(unreadable)} images under {folder} can be read, for example "
            f"{unreadable[0].path}: {unreadable[0].reason}"
        )
    loose = any(named_like_an_image(child.name) for child in folder.iterdir())
    if loose:
        raise DataError(
            f"{folder} has images but no class folders; put the images of each class in a folder "
            f"named after it."
        )
    raise DataError(f"No images under {folder}; it needs one folder of images for each class.")


def refuse_one_class(classes: Sequence[str], folder: Path) -> None:
    """DataError if there is nothing to tell apart."""
    if len(classes) > 1:
        return
    inside = [child.name for child in visible_folders(folder / classes[0])]
    hint = (
        f"If its sub-folders ({listed(inside)}) are the classes, give {folder / classes[0]}."
        if inside
        else "Add a folder with images of something else."
    )
    raise DataError(f"{folder} has one class only, '{classes[0]}': nothing to tell apart. {hint}")


def refuse_strangers(held: Found, classes: Sequence[str], folder: Path) -> None:
    """DataError if a held-out class has no training images."""
    strangers = Counter(name for name in held.classes if name not in classes)
    if strangers:
        name, count = min(strangers.items())
        raise DataError(
            f"{folder} has a class '{name}' ({count} images) that the training images do not "
            f"have; {closest(name, classes)} Rename or remove the folder."
        )


def refuse_many_unreadable(
    problems: Sequence[Problem], readable: int, root: Path, allowed: bool
) -> None:
    """DataError if more than 1 % of the files, and more than one, cannot be read."""
    bad = [problem for problem in problems if problem.code == "unreadable"]
    if allowed or len(bad) < 2 or len(bad) <= _UNREADABLE * (readable + len(bad)):
        return
    examples = "; ".join(f"{problem.path}: {problem.reason}" for problem in bad[:3])
    raise DataError(
        f"{len(bad)} of {readable + len(bad)} files under {root} cannot be read, more than 1 %. "
        f"Remove them, or go on without them: --set data.allow_unreadable=true. "
        f"For example {examples}"
    )


def empty(found: Found, folder: Path, root: Path) -> list[Problem]:
    """Class folders without an image that can be read."""
    reason = "The folder holds no readable image; it is not a class."
    return [Problem(_inside(folder, root) + name, reason, "empty") for name in found.empty]


def too_small(found: Found, folder: Path, root: Path) -> list[Problem]:
    """Classes with a single image, which goes to training and leaves none to hold out."""
    reason = "The class has one image; it is used for training and not held out."
    counts = Counter(found.classes)
    single = [name for name in counts if counts[name] == 1]
    return [Problem(_inside(folder, root) + name, reason, "small") for name in single]


def missing(held: Found, classes: Sequence[str], folder: Path, root: Path) -> list[Problem]:
    """Classes without a held-out image: no accuracy can be told for them."""
    reason = f"The class has training images and none in {folder.name}/: it is not evaluated."
    absent = sorted(set(classes) - set(held.classes))
    return [Problem(_inside(folder, root) + name, reason, "unmatched") for name in absent]


def _inside(folder: Path, root: Path) -> str:
    """'train/' for root/train, '' for the root itself."""
    return "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
