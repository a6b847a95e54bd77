"""Where samples come from: files, arrays or drawings, behind one Split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from vitral.errors import DataError
from vitral.images.samples import draw


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the data that the user should know.

    Attributes:
        path: the file or folder, relative to the source, with forward slashes.
        reason: one sentence.
        code: "unreadable" files are left out; the others are remarks.
    """

    path: str
    reason: str
    code: Literal["unreadable", "loop", "twins", "empty", "small", "unmatched"] = "unreadable"


class Reader(Protocol):
    """Samples by their row; small enough to send to a worker process."""

    def read(self, row: int) -> bytes | np.ndarray:
        """The file's bytes or uint8 (H, W, 3); DataError if there is none."""

    def key(self, row: int) -> str:
        """The name of a sample."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Labelled samples.

    Attributes:
        name: "train", "val" or "test".
        labels: int64 (n,), indices into the classes of the dataset.
        rows: int64 (n,), where each sample stands in the reader.
        reader: what reads them.
        problems: what was found and left out while looking for them.
    """

    name: str
    labels: np.ndarray
    rows: np.ndarray
    reader: Reader
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes | np.ndarray:
        """The bytes of the file, or uint8 (H, W, 3); DataError if it cannot be had."""
        return self.reader.read(int(self.rows[index]))

    def key(self, index: int) -> str:
        """The path relative to the source with forward slashes, or a name such as digits/12."""
        return self.reader.key(int(self.rows[index]))

    def select(self, indices: Sequence[int] | np.ndarray) -> Split:
        """The split of these samples alone, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(self, labels=self.labels[chosen], rows=self.rows[chosen])


@dataclass(frozen=True, slots=True)
class Files:
    """Image files below a folder."""

    root: str
    names: tuple[str, ...]

    def read(self, row: int) -> bytes:
        """The bytes of a file; DataError if it has gone or may not be read."""
        try:
            return (Path(self.root) / self.names[row]).read_bytes()
        except OSError as error:
            raise DataError(f"The file cannot be read ({error.strerror or error}).") from error

    def key(self, row: int) -> str:
        """The path relative to the folder."""
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
        """uint8 (H, W, 3)."""
        return self.images[row]

    def key(self, row: int) -> str:
        """For example digits/12."""
        return self.keys[row]


@dataclass(frozen=True, slots=True)
class Scenes:
    """The drawn pictures of samples.py."""

    seed: int
    size: int

    def read(self, row: int) -> np.ndarray:
        """uint8 (size, size, 3)."""
        return draw(self.seed, row, self.size).image

    def key(self, row: int) -> str:
        """For example shapes/12."""
        return f"shapes/{row}"
