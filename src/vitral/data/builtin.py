"""Data that comes with the program: `digits`, real and small, and `shapes`, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitral.data.shapes import KINDS, draw, label_of
from vitral.data.sources import Arrays, DataLayout, ScanResult, SourceOptions
from vitral.errors import UsageError

BUILT_IN = ("digits", "shapes")

_FIRST_VAL = 1 << 40  # scenes from here on are never used for training


@dataclass(frozen=True, slots=True)
class Digits:
    """The 1,797 handwritten digits that come with scikit-learn, 8 × 8 pixels."""

    def __str__(self) -> str:
        return "digits"

    def scan(self) -> ScanResult:
        """Lists every digit, its 17 levels stretched to the 256 of a photograph."""
        from sklearn.datasets import load_digits  # noqa: PLC0415 - a second, for this alone

        data = load_digits()
        grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
        names = tuple(f"digits/{row}" for row in range(len(grey)))
        reader = Arrays(np.repeat(grey[..., None], 3, axis=3), names)
        scanned = ScanResult(reader, made_from="digits")
        for name, label in zip(names, data.target.tolist(), strict=True):
            scanned.add(name, (str(label),))
        return scanned


@dataclass(frozen=True, slots=True)
class Scenes:
    """Draws scenes of `shapes` when they are asked for, those from number `first` on."""

    seed: int
    size: int
    first: int = 0

    def read(self, row: int) -> np.ndarray:
        """Draws one scene: uint8 (size, size, 3)."""
        return draw(self.seed, self.first + row, self.size).image

    def key(self, row: int) -> str:
        """Names a scene by its number: shapes/12."""
        return f"shapes/{self.first + row}"


@dataclass(frozen=True, slots=True)
class Shapes:
    """Scenes of `shapes` with consecutive numbers.

    Attributes:
        scenes: draws them.
        count: how many.
        made_from: tells them from those of other settings.
    """

    scenes: Scenes
    count: int
    made_from: str

    def __str__(self) -> str:
        return "shapes"

    def scan(self) -> ScanResult:
        """Lists the scenes without drawing them; every class is there, however few scenes are."""
        scanned = ScanResult(self.scenes, made_from=self.made_from, class_names=KINDS)
        for row in range(self.count):
            label = label_of(self.scenes.seed, self.scenes.first + row)
            scanned.add(self.scenes.key(row), (KINDS[label],))
        return scanned


def layout(source: str, options: SourceOptions) -> DataLayout | None:
    """Gives the layout of a built-in name; None for any other source.

    For each training scene of `shapes` there are as many held-out ones as val_fraction says, 500
    at least. Raises UsageError for a count below 1.
    """
    if source == "digits":
        return DataLayout("built in", Digits(), None, "val", source, is_path=False)
    if source != "shapes":
        return None
    count = 10_000 if options.count is None else options.count
    if count < 1:
        raise UsageError(f"count is the number of training images, at least 1, not {count}.")
    size = options.size or 64
    share = options.val_fraction
    held_out = max(500, round(count * share / (1 - share)))
    made_from = f"shapes/{options.seed}/{size}/{count}/{held_out}"
    return DataLayout(
        "built in",
        Shapes(Scenes(options.seed, size), count, made_from),
        Shapes(Scenes(options.seed, size, _FIRST_VAL), held_out, made_from),
        "val",
        source,
        is_path=False,
    )
