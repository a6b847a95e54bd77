"""Sources of images, the results of scanning them, and the splits of samples that come out.

    SplitSource.scan() -> ScanResult -> Split, two of which are a Dataset

A new kind of source is one file with a function `layout`, and a line in `layouts.KINDS`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from vitral.data.decisions import Decision
from vitral.data.names import HeldOutName
from vitral.errors import DataError, TruncatedError
from vitral.specs.tree import ClassTree

Code = Literal[
    "unreadable",  # left out
    "truncated",
    "empty-row",  # rows of a list that stop a training
    "missing",
    "two-labels",
    "case",
    "extension",  # remarks on files
    "rotated",
    "16-bit",
    "transparent",
    "unseen",
    "flat",
    "bands",
    "duplicate",
    "near-duplicate",
    "two-classes",
    "leakage",
    "beside",  # remarks on folders, classes and lists
    "loop",
    "hidden",
    "twins",
    "similar-names",
    "empty",
    "small",
    "unmatched",
    "repeated",
    "labels-unused",
]
Groups = Literal["auto", "none"]
LEFT_OUT = frozenset({"unreadable", "truncated"})
QUIET = frozenset({"hidden"})  # problems that only `vitral check` speaks of

_WINDOW = 8  # shards of which the samples are mixed at a time, where they come from far away


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the data that the user should know.

    Attributes:
        path: the file or folder, relative to the source, with forward slashes.
        reason: one sentence.
        code: what kind of problem; files with a code of LEFT_OUT are not used.
    """

    path: str
    reason: str
    code: Code = "unreadable"

    @classmethod
    def left_out(cls, path: str, error: DataError) -> Problem:
        """Names a file that cannot be read, and why."""
        code: Code = "truncated" if isinstance(error, TruncatedError) else "unreadable"
        return cls(path, str(error), code)

    @classmethod
    def labels_unused(cls, where: str) -> Problem:
        """Remarks on classes that are named where none are asked for."""
        return cls(where, "It names classes; nothing is learnt from them.", "labels-unused")


@dataclass(frozen=True, slots=True)
class Header:
    """The size of an image and what is unusual about its file, by its first bytes.

    Attributes:
        height, width: pixels of the upright image.
        remarks: what is unusual about the file.
        bands: of a TIFF of which three bands have to be chosen, what it has, in words; otherwise
            "".
    """

    height: int
    width: int
    remarks: tuple[Code, ...] = ()
    bands: str = ""

    def three_bands(self) -> tuple[int, int, int] | None:
        """Names the first three bands of a file of which none were chosen, to look at it at all."""
        if not self.bands:
            return None
        count = int(self.bands.split()[0])
        return (1, min(2, count), min(3, count))


class Reader(Protocol):
    """A reader of samples by their row, small enough to send to a worker process."""

    def read(self, row: int) -> bytes | np.ndarray:
        """Reads a sample: the file's bytes or uint8 (H, W, 3); DataError if there is none."""

    def key(self, row: int) -> str:
        """Gives the name of a sample."""


@dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    """Some samples of a reader: row i is its row rows[i]."""

    reader: Reader
    rows: np.ndarray

    def read(self, row: int) -> bytes | np.ndarray:
        return self.reader.read(int(self.rows[row]))

    def key(self, row: int) -> str:
        return self.reader.key(int(self.rows[row]))


@dataclass(slots=True)
class ScanResult:
    """The images of a source that can be read, and what is wrong with the others.

    Attributes:
        reader: reads the images; row i is the i-th of the lists below.
        names: what each is called, with forward slashes, in order.
        labels: the class names of each: one, or any number where multi_label says so.
        sizes: bytes of each.
        stamps: when each was last changed, 0 where nothing says so.
        headers: what the header of each says; None where it was not looked at.
        empty_classes: classes without a readable image.
        problems: what was left out or merged, and remarks.
        shards: which shard each lies in, where those are worth reading one after the other.
        labelled: whether images have labels; a class that is not asked for is no label.
        class_names: every class, where the source knows them without its images.
        made_from: for images that are made here and not read from files: what tells them from
            others. They hold no copies and no damage, so nothing looks for either.
        decisions: what was chosen while looking, such as the column of the labels.
        tree: the groups of the classes, where the source has them.
        owners: whose picture each is, by its name, as "patient_id=7"; empty where nothing says it.
    """

    reader: Reader
    names: list[str] = field(default_factory=list)
    labels: list[tuple[str, ...]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    headers: list[Header | None] = field(default_factory=list)
    empty_classes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    multi_label: bool = False
    shards: np.ndarray | None = None
    labelled: bool = True
    class_names: tuple[str, ...] = ()
    made_from: str = ""
    decisions: list[Decision] = field(default_factory=list)
    tree: ClassTree | None = None
    owners: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        name: str,
        labels: tuple[str, ...],
        size: int = 0,
        header: Header | None = None,
        stamp: int = 0,
    ) -> None:
        """Lists one more image, which the reader has yet to be given."""
        self.names.append(name)
        self.labels.append(labels)
        self.sizes.append(size)
        self.stamps.append(stamp)
        self.headers.append(header)

    @property
    def banded(self) -> Problem | None:
        """Names the first TIFF of which three bands have to be chosen."""
        for name, header in zip(self.names, self.headers, strict=True):
            if header is not None and header.bands:
                return Problem(name, f"It is a TIFF of {header.bands}.", "bands")
        return None

    @property
    def classes(self) -> tuple[str, ...]:
        """Every class name, sorted."""
        return self.class_names or tuple(
            sorted({name for names in set(self.labels) for name in names})
        )

    def without(self, rows: Container[int]) -> ScanResult:
        """Leaves these images out; a class of which none is left is empty."""
        kept = [row for row in range(len(self.names)) if row not in rows]
        if len(kept) == len(self.names):
            return self
        left = replace(
            self,
            reader=_Chosen(self.reader, np.array(kept, dtype=np.int64)),
            names=[self.names[row] for row in kept],
            labels=[self.labels[row] for row in kept],
            sizes=[self.sizes[row] for row in kept],
            stamps=[self.stamps[row] for row in kept],
            headers=[self.headers[row] for row in kept],
            shards=None if self.shards is None else self.shards[kept],
        )
        left.empty_classes = [*self.empty_classes, *sorted(set(self.classes) - set(left.classes))]
        return left

    def without_labels(self) -> ScanResult:
        """Takes the labels from all images."""
        nothing: list[tuple[str, ...]] = [()] * len(self.names)
        bare = replace(self, labels=nothing, multi_label=False, labelled=False)
        return replace(bare, empty_classes=[], class_names=())

    def numbers(self, classes: Sequence[str]) -> np.ndarray:
        """Gives labels as indices into `classes`: int64 (n,), or bool (n, classes) for multi_label.

        An image without a label has the index -1, or a row of zeros.
        """
        index = {name: number for number, name in enumerate(classes)}
        if not self.multi_label:
            own = [index[names[0]] if names else -1 for names in self.labels]
            return np.array(own, dtype=np.int64)
        labels = np.zeros((len(self.names), len(classes)), dtype=bool)
        for row, names in enumerate(self.labels):
            labels[row, [index[name] for name in names]] = True
        return labels

    def split(self, name: str, classes: Sequence[str], rows: Iterable[int] | None = None) -> Split:
        """Makes a split of the samples in these rows, or of all."""
        labels = self.numbers(classes)
        chosen = np.arange(len(labels)) if rows is None else np.fromiter(rows, dtype=np.int64)
        shards = None if self.shards is None else self.shards[chosen]
        problems = tuple(problem for problem in self.problems if problem.code not in QUIET)
        return Split(name, labels[chosen], chosen, self.reader, problems, shards)


class SplitSource(Protocol):
    """A place where the images of one part of a split are, such as a folder of class folders."""

    def scan(self) -> ScanResult:
        """Looks at every image; DataError if the place itself cannot be used."""

    def __str__(self) -> str:
        """What the user calls it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """Settings of a source, known before it is looked through.

    Attributes:
        labelled: whether images need a label; otherwise they may lie anywhere in a folder, and a
            list or a table needs no column of labels.
        seed: of the split of a source without its own, and of the scenes of `shapes`.
        val_fraction: share of each class that is held out where the source has no split.
        size: side in pixels of the scenes of `shapes`; None for the usual.
        count: number of training scenes of `shapes`; None for the usual.
        known: classes that the data set has beside those of its images.
        tree: where the groups of the classes are: a file, "folders" for folders within folders,
            "none"; None looks for classes.csv beside the images.
        class_file: of class names (`--classes`); "" for none but one that lies beside them.
        label_file: of corrections (`--labels`); "" for none.
        groups: "auto" keeps pictures of one patient or the like on one side of the split that is
            made here, where a column says whose they are; "none" does not.
        label_column: the column of a table that holds the labels; "" where its name tells it.
    """

    labelled: bool = True
    seed: int = 0
    val_fraction: float = 0.2
    size: int | None = None
    count: int | None = None
    known: tuple[str, ...] = ()
    tree: str | None = None
    class_file: str = ""
    label_file: str = ""
    groups: Groups = "auto"
    label_column: str = ""

    @property
    def nested(self) -> bool:
        """True where every folder that holds images is a class, and those above it are groups."""
        return self.tree == "folders"


@dataclass(frozen=True, slots=True)
class DataLayout:
    """The two parts of a source, training and held-out images, before any image is looked at.

    Attributes:
        kind: what the source is, in words.
        train: the training images, or all; None if there are held-out images only.
        held_out: the user's own held-out images, or None.
        held_name: what those are called.
        root: the folder, the file or the name, for messages.
        is_path: whether `root` is a path on this machine.
        decisions: what was chosen while it was recognised, such as one of two lists.
    """

    kind: str
    train: SplitSource | None
    held_out: SplitSource | None
    held_name: HeldOutName
    root: str
    is_path: bool = True
    decisions: tuple[Decision, ...] = ()

    @property
    def absolute(self) -> str:
        """Names the source so that it can be found again from another folder."""
        return str(Path(self.root).resolve()) if self.is_path else self.root


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Samples with their labels, such as all training images.

    Attributes:
        name: "train", "val" or "test".
        labels: int64 (n,), indices into the classes of the dataset, -1 where there are none; with
            several labels for an image, bool (n, classes).
        rows: int64 (n,), where each sample stands in the reader.
        reader: what reads them.
        problems: what was found and left out while looking for them.
        shards: int (n,), the shard of each sample where those come from far away, or None.
    """

    name: str
    labels: np.ndarray
    rows: np.ndarray
    reader: Reader
    problems: tuple[Problem, ...] = ()
    shards: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes | np.ndarray:
        """Reads a sample: the bytes of its file, or uint8 (H, W, 3); DataError if it is gone."""
        return self.reader.read(int(self.rows[index]))

    def key(self, index: int) -> str:
        """Names a sample: its path relative to the source, or a name such as digits/12."""
        return self.reader.key(int(self.rows[index]))

    def select(self, indices: Sequence[int] | np.ndarray) -> Split:
        """Keeps these samples alone, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        shards = None if self.shards is None else self.shards[chosen]
        return replace(self, labels=self.labels[chosen], rows=self.rows[chosen], shards=shards)

    def order(self, seed: int) -> list[int]:
        """Draws a permutation of the samples that the seed decides.

        Samples near at hand come in any order. Shards from far away come in a random order of
        their own, and samples are mixed among `_WINDOW` shards at a time: every window is then
        fetched once and read through before the next. Either way an epoch is one list of indices,
        so that a resume, workers and processes each take their part of the same list.
        """
        import torch  # noqa: PLC0415 - sources are looked at without it

        generator = torch.Generator().manual_seed(seed)
        if self.shards is None:
            return torch.randperm(len(self), generator=generator).tolist()
        names, shard = np.unique(self.shards, return_inverse=True)
        turn = torch.randperm(len(names), generator=generator).numpy()[shard] // _WINDOW
        mixed = torch.randperm(len(self), generator=generator).numpy()
        return mixed[np.argsort(turn[mixed], kind="stable")].tolist()


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Training and held-out samples with the same classes.

    Attributes:
        source: what the user named.
        absolute_source: the same, as it can be found again from another folder.
        classes: the class names, sorted; a label is an index into them. None without labels.
        train, val: the samples.
        problems: unreadable files that were left out, and remarks.
        fingerprint: changes when a name, a size, a label or the split does.
        contents: what it is of, so that a difference can be told: see `contents_of`.
        decisions: what was chosen for the user, in order.
        banded: the first TIFF of which three bands have to be chosen; None where there is none.
        tree: the groups of the classes; None without any.
    """

    source: str
    absolute_source: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    problems: tuple[Problem, ...]
    fingerprint: str
    contents: Mapping[str, Any] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()
    banded: Problem | None = None
    tree: ClassTree | None = None

    @property
    def multi_label(self) -> bool:
        """True if an image has any number of labels: bool (n, classes) instead of int64 (n,)."""
        return self.train.labels.ndim > 1


@dataclass(frozen=True, slots=True)
class Division:
    """The division of a training's images, as its artifact says it, so that it can be made again.

    Attributes:
        source, fingerprint: of the data; None where the artifact does not say them.
        seed, val_fraction, count, known, class_file, label_file, groups, label_column: what
            open_dataset was told.
        nested: whether classes were folders within folders.
    """

    source: str | None = None
    fingerprint: str | None = None
    seed: int = 0
    val_fraction: float = 0.2
    count: int | None = None
    known: tuple[str, ...] = ()
    nested: bool = False
    class_file: str = ""
    label_file: str = ""
    groups: Groups = "none"
    label_column: str = ""


@dataclass(frozen=True, slots=True)
class Files:
    """Image files below a folder."""

    root: str
    names: tuple[str, ...]

    def read(self, row: int) -> bytes:
        """Reads the bytes of a file; DataError if it has gone or may not be read."""
        try:
            return (Path(self.root) / self.names[row]).read_bytes()
        except OSError as error:
            raise DataError(f"The file cannot be read ({error.strerror or error}).") from error

    def key(self, row: int) -> str:
        """Names a file by its path relative to the folder."""
        return self.names[row]


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """Images in memory.

    Attributes:
        images: uint8 (n, H, W, 3).
        keys: the name of each.
    """

    images: np.ndarray
    keys: tuple[str, ...]

    def read(self, row: int) -> np.ndarray:
        """Gives an image: uint8 (H, W, 3)."""
        return self.images[row]

    def key(self, row: int) -> str:
        """Names an image: digits/12."""
        return self.keys[row]


def located(split: Split, index: int) -> str:
    """Gives the path of a sample that is a file below a folder, as it is found from here.

    A sample of any other kind has its name alone.
    """
    reader = split.reader
    row = int(split.rows[index])
    while isinstance(reader, _Chosen):
        row = int(reader.rows[row])
        reader = reader.reader
    if isinstance(reader, Files):
        return str(Path(reader.root).absolute() / reader.names[row])
    return reader.key(row)
