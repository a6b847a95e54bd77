"""What the benchmarks compare is alike on both sides."""

import argparse
import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_both_sides_of_scratch_compute_on_the_same_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    scratch = importlib.import_module("scratch")
    said: list[object] = []

    def trained(data: object, out: Path, *words: object, changes: object) -> dict[str, Any]:
        said.extend(words)
        return {"accuracy": 0.5, "samples": 10}

    monkeypatch.setattr(scratch, "trained", trained)
    scratch.ours(argparse.Namespace(photos="x", changes=[], seed=0), 1.5, tmp_path)
    assert said[said.index("--device") + 1] == scratch.DEVICE
