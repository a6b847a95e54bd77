"""`vitral check`: what a data set holds and everything that is wrong with it, before training.

    found = check("photos/")           # headers and ends of files; equal files by their content
    found = check("photos/", full=True)     # decodes every picture, and finds near-duplicates too

It says what `open_dataset` will do with the same source: which files it leaves out, the split that
it makes, and the sentence with which it refuses, if it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data import class_tree, layouts, near_duplicates
from vitral.data.datasets import decisions_of, divide, refuse
from vitral.data.decisions import Decision, to_json
from vitral.data.near_duplicates import Tick
from vitral.data.problems import empty_classes, missing, refuse_bands
from vitral.data.scanning import scan
from vitral.data.sources import (
    Code,
    DataLayout,
    Dataset,
    Problem,
    ScanResult,
    SourceOptions,
    Split,
)
from vitral.data.splits import DuplicateGroups
from vitral.errors import DataError

EXAMPLES = 5
SMALL = 10  # images of a class, below which it can hardly be learnt or judged

# What happens to the images with a problem.
EFFECTS: dict[Code, str] = {
    "unreadable": "left out",
    "truncated": "left out",
    "empty-row": "stops the training",
    "missing": "stops the training",
    "two-labels": "stops the training",
    "case": "stops the training",
    "extension": "read by its content",
    "rotated": "turned upright",
    "16-bit": "scaled to 8 bits by its range",
    "transparent": "pasted on white",
    "unseen": "the colours beneath are read",
    "flat": "kept",
    "bands": "three are read: --set images.bands=[3,2,1]; without it training stops",
    "duplicate": "kept; copies go to the same side of a split that Vitral makes",
    "near-duplicate": "kept; copies go to the same side of a split that Vitral makes",
    "two-classes": "kept under both labels; decide which is right",
    "leakage": "kept; the accuracy on held-out images will flatter",
    "beside": "not used",
    "loop": "passed over",
    "hidden": "passed over",
    "twins": "taken as one class",
    "empty": "not a class",
    "small": "hardly learnt, hardly judged; add images",
    "unmatched": "not evaluated",
    "repeated": "read once",
    "similar-names": "taken as two classes",
    "labels-unused": "kept",
}

_REMARKS: dict[Code, str] = {
    "extension": "The content is of another format than the extension says.",
    "rotated": "The photo is stored turned or mirrored, and says so (EXIF).",
    "16-bit": "It has more than 8 bits per channel.",
    "transparent": "It has transparency.",
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Compared:
    """What comes of looking at every file.

    Attributes:
        failed: what cannot be decoded, by its row in each part.
        group_ids: the first picture of which each is a copy, and contents: the content of each
            where it was read; both with rows that count through all parts.
        remarks: on pictures in which nothing is seen.
    """

    failed: list[dict[int, Problem]]
    group_ids: np.ndarray
    contents: list[bytes]
    remarks: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a split: how many images, and how many of each class."""

    images: int
    classes: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A report on a data set: its images, its classes, its split and its problems.

    Attributes:
        source, layout: what the user named, and what it is.
        classes: images of each class.
        images: how many can be used.
        train, val: the two sides of the split; None where none can be made.
        how: the split is made, in words.
        sizes: (height, width) of the smallest, the median and the largest image, by area; None
            where no header was read.
        problems: all of them, by code in the order of EFFECTS.
        refusal: why a training would not start; "" if it would.
        full: whether every picture was decoded.
        decisions: what a training would choose for the user, in order.
    """

    source: str
    layout: str
    images: int
    classes: dict[str, int]
    train: Side | None
    val: Side | None
    how: str
    sizes: tuple[tuple[int, int], ...] | None
    problems: dict[Code, tuple[Problem, ...]]
    refusal: str
    full: bool
    decisions: tuple[Decision, ...] = ()

    @property
    def balance(self) -> float:
        """Divides the images of the largest class by those of the smallest."""
        counts = self.classes.values()
        return max(counts) / max(1, min(counts)) if counts else 1.0

    def effect(self, code: Code) -> str:
        """Says what happens to the images with a problem."""
        return EFFECTS[code]

    def to_dict(self) -> dict[str, Any]:
        """Gives plain JSON values, with five examples of each problem."""
        names = ("min", "median", "max")
        return {
            "source": self.source,
            "layout": self.layout,
            "images": self.images,
            "classes": self.classes,
            "balance": round(self.balance, 3),
            "sizes": self.sizes and dict(zip(names, map(list, self.sizes), strict=True)),
            "split": {
                "how": self.how,
                "train": self.train and asdict(self.train),
                "val": self.val and asdict(self.val),
            },
            "decisions": to_json(self.decisions),
            "problems": [
                {
                    "code": code,
                    "count": len(found),
                    "effect": EFFECTS[code],
                    "examples": [{"path": p.path, "reason": p.reason} for p in found[:EXAMPLES]],
                }
                for code, found in self.problems.items()
            ],
            "full": self.full,
            "ready": not self.refusal,
            "refusal": self.refusal or None,
        }


def check(  # noqa: PLR0913 - the settings of a source, each by name
    source: str | Path,
    *,
    full: bool = False,
    seed: int = 0,
    val_fraction: float = 0.2,
    tree: str | None = None,
    class_file: str = "",
    label_file: str = "",
    tick: Tick | None = None,
) -> Check:
    """Looks through what the user named; the settings of the split are those of open_dataset.

    Args:
        source: as for open_dataset.
        full: decode every picture.
        seed, val_fraction: of the split.
        tree: the groups of the classes, as of open_dataset.
        class_file, label_file: of class names and of corrections; "" for none.
        tick: called with (pictures decoded, of how many).

    Raises DataError where there is nothing to look at, MachineError for a missing library.
    """
    options = SourceOptions(
        seed=seed,
        val_fraction=val_fraction,
        tree=tree,
        class_file=class_file,
        label_file=label_file,
    )
    class_tree.refuse(options, str(source))
    layout = layouts.find(str(source), options)
    parts = scan((layout.train, layout.held_out), layout, options)
    problems = [problem for part in parts for problem in part.problems]
    problems += [problem for part in parts for problem in _of_headers(part)]
    made_here = any(part.made_from for part in parts)  # nothing there to be found
    decodes = full and not made_here
    compared = _decoded(parts, tick) if decodes else _undecoded(parts)
    failed = compared.failed
    group_ids = compared.group_ids
    problems += [problem for of_part in failed for problem in of_part.values()]
    problems += compared.remarks
    problems += _of_copies(parts, group_ids, compared.contents)
    data, refusal = _attempt(layout, parts, compared, options)
    refusal = refusal or _without_bands(parts, str(source))
    left = [part.without(rows) for part, rows in zip(parts, failed, strict=True)]
    problems += _of_classes(layout, left)
    return Check(
        source=str(source),
        layout=layout.kind,
        images=sum(len(part.names) for part in left),
        classes=_counts([labels for part in left for labels in part.labels]),
        train=None if data is None else _side(data, data.train),
        val=None if data is None else _side(data, data.val),
        how="as it comes" if made_here else _how(layout, options, full),
        sizes=_sizes(parts),
        problems=_by_code(problems),
        refusal=refusal,
        full=full or made_here,
        decisions=_decisions(layout, parts, options) if data is None else data.decisions,
    )


def _attempt(
    layout: DataLayout,
    parts: list[ScanResult],
    compared: _Compared,
    options: SourceOptions,
) -> tuple[Dataset | None, str]:
    """(the split that a training makes or would make if it went on, why it refuses)."""
    if layout.train is None:
        return None, "There are held-out images only: good to evaluate on."
    failed = compared.failed
    group_ids = compared.group_ids[: len(parts[0].names)]
    duplicates = DuplicateGroups(group_ids, failed[0], tuple(compared.remarks))
    held, broken = (parts[1], failed[1]) if len(parts) > 1 else (None, {})
    refusal = ""
    for allowed in (False, True):
        try:
            refuse(layout, parts[0], held, allowed)
            data = divide(layout, parts[0], held, duplicates, broken, options, allowed)
        except DataError as error:
            refusal = refusal or str(error)
        else:
            return data, refusal
    return None, refusal


def _decisions(
    layout: DataLayout, parts: list[ScanResult], options: SourceOptions
) -> tuple[Decision, ...]:
    """What is chosen of a source that cannot be divided."""
    remarks = [problem for part in parts for problem in part.problems]
    held = parts[1] if len(parts) > 1 else None
    return decisions_of(layout, parts[0], held, remarks, options)


def _without_bands(parts: list[ScanResult], where: str) -> str:
    """Why a training stops that was not told which bands to show."""
    try:
        refuse_bands(next((part.banded for part in parts if part.banded), None), where)
    except DataError as error:
        return str(error)
    return ""


def _of_headers(part: ScanResult) -> Iterator[Problem]:
    for name, header in zip(part.names, part.headers, strict=True):
        for code in header.remarks if header else ():
            yield Problem(name, _REMARKS[code], code)
        if header is not None and header.bands:
            yield Problem(name, f"It has {header.bands}.", "bands")


def _undecoded(parts: list[ScanResult]) -> _Compared:
    """Equal files: only those are read that have as many bytes as another one."""
    count = Counter(size for part in parts for size in part.sizes)
    contents = []
    for part in parts:
        for row, size in enumerate(part.sizes):
            try:
                # what is far away stays there, and what is made here has no copies
                again = count[size] > 1 and part.shards is None and not part.made_from
                contents.append(near_duplicates.content(part.reader.read(row)) if again else b"")
            except DataError:
                contents.append(b"")
    return _Compared(
        failed=[{} for _ in parts],
        group_ids=near_duplicates.equals(contents),
        contents=contents,
    )


def _decoded(parts: list[ScanResult], tick: Tick | None) -> _Compared:
    """Every picture decoded and compared with all others."""
    thumbnails: list[near_duplicates.Thumbnails] = []
    total = sum(len(part.names) for part in parts)
    done = 0

    def onward(row: int, _: int) -> None:
        if tick is not None:
            tick(done + row, total)

    for part in parts:
        thumbnails.append(near_duplicates.thumbnails_of(part, onward))
        done += len(part.names)
    images = np.concatenate([part.images for part in thumbnails])
    contents = [content for part in thumbnails for content in part.contents]
    return _Compared(
        failed=[part.failed for part in thumbnails],
        group_ids=near_duplicates.groups(images, contents),
        contents=contents,
        remarks=[remark for part in thumbnails for remark in part.remarks],
    )


def _of_copies(
    parts: list[ScanResult], group_ids: np.ndarray, contents: list[bytes]
) -> Iterator[Problem]:
    """Copies by their first picture; groups with two labels; groups on both sides."""
    names = [name for part in parts for name in part.names]
    labels = [label for part in parts for label in part.labels]
    side = np.repeat(np.arange(len(parts)), [len(part.names) for part in parts])
    together: dict[int, list[int]] = {}
    for row, first in enumerate(group_ids.tolist()):
        if row != first:
            together.setdefault(first, [first]).append(row)
            if contents[row] and contents[row] == contents[first]:
                yield Problem(names[row], f"The same file as {names[first]}.", "duplicate")
            else:
                yield Problem(names[row], f"Looks the same as {names[first]}.", "near-duplicate")
    for first, rows in together.items():
        other = next((row for row in rows if labels[row] != labels[first]), None)
        if other is not None:
            said = (
                f"'{'|'.join(labels[first])}' here, '{'|'.join(labels[other])}' as {names[other]}."
            )
            yield Problem(names[first], said, "two-classes")
        held = next((row for row in rows if side[row] != side[first]), None)
        if held is not None:
            said = f"It is among the held-out images too, as {names[held]}."
            yield Problem(names[first], said, "leakage")


def _of_classes(layout: DataLayout, parts: list[ScanResult]) -> Iterator[Problem]:
    train = parts[0]
    where = str(layout.train or layout.held_out)
    yield from empty_classes(train, where, layout.root)
    if len(parts) > 1:
        yield from missing(parts[1], train.classes, str(layout.held_out), layout.root)
    for name, count in _counts(train.labels).items():
        if count < SMALL:
            images = "image" if count == 1 else "images"
            yield Problem(name, f"The class has {count} {images}.", "small")


def _counts(labels: Iterable[tuple[str, ...]]) -> dict[str, int]:
    return dict(sorted(Counter(name for names in labels for name in names).items()))


def _side(data: Dataset, split: Split) -> Side:
    labels = split.labels
    counts = (
        np.bincount(labels, minlength=len(data.classes)) if labels.ndim == 1 else labels.sum(axis=0)
    )
    return Side(len(split), dict(zip(data.classes, counts.tolist(), strict=True)))


def _how(layout: DataLayout, options: SourceOptions, full: bool) -> str:
    if layout.held_out is not None:
        return "its own"
    near = "copies kept on one side" if full else "copies kept on one side (near ones: --full)"
    share = f"{100 * options.val_fraction:g} % of each class held out"
    return f"{share}, seed {options.seed}, {near}"


def _sizes(parts: list[ScanResult]) -> tuple[tuple[int, int], ...] | None:
    known = [(h.height, h.width) for part in parts for h in part.headers if h is not None]
    known.sort(key=lambda size: (size[0] * size[1], size))
    return (known[0], known[len(known) // 2], known[-1]) if known else None


def _by_code(problems: Iterable[Problem]) -> dict[Code, tuple[Problem, ...]]:
    found: dict[Code, list[Problem]] = {}
    for problem in problems:
        found.setdefault(problem.code, []).append(problem)
    return {code: tuple(found[code]) for code in EFFECTS if code in found}
