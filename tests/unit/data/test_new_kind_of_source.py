"""A kind of source that nothing in the package knows: a function and a line in layouts.KINDS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from vitral.data import layouts
from vitral.data.check import check
from vitral.data.datasets import list_images, open_dataset, open_for_scoring
from vitral.data.sources import Arrays, DataLayout, ScanResult, SourceOptions
from vitral.errors import DataError


@dataclass(frozen=True)
class Stripes:
    """Grey pictures in memory, light and dark."""

    count: int

    def __str__(self) -> str:
        return "stripes"

    def scan(self) -> ScanResult:
        images = np.random.default_rng(0).integers(0, 256, (self.count, 8, 8, 3), np.uint8)
        names = tuple(f"stripes/{row}" for row in range(self.count))
        scanned = ScanResult(Arrays(images, names))
        for row, name in enumerate(names):
            scanned.add(name, ("dark" if row % 2 else "light",), size=row)
        return scanned


def stripes(source: str, options: SourceOptions) -> DataLayout | None:
    if not source.startswith("stripes:"):
        return None
    count = int(source.removeprefix("stripes:"))
    return DataLayout("stripes", Stripes(count), None, "val", source, is_path=False)


def test_a_new_kind_of_source_is_one_function_and_one_line(monkeypatch):
    """Training, checking, scoring and embedding take it, though none of them knows of it."""
    monkeypatch.setattr(layouts, "KINDS", (stripes, *layouts.KINDS))
    data = open_dataset("stripes:20")
    assert data.classes == ("dark", "light") and (len(data.train), len(data.val)) == (16, 4)
    assert data.absolute_source == "stripes:20"
    assert open_dataset("stripes:20", labelled=False).classes == ()
    assert check("stripes:20", full=True).images == 20
    assert len(open_for_scoring("stripes:20", data.classes).split) == 20
    assert list_images(["stripes:20"], size=8).classes == data.classes
    with pytest.raises(DataError, match="one class only"):
        open_dataset("stripes:1")
