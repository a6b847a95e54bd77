"""The first command of the README keeps its promises."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vitral.data.datasets import open_dataset


def learnt_and_tested(run: Path, accuracy: float) -> None:
    """So accurate, on digits that were not learnt from and that chose nothing."""
    card = json.loads((run / "best" / "model.json").read_text(encoding="utf-8"))
    assert card["metrics"]["selected"] == "last", "no test image may choose the weights"
    assert card["metrics"]["samples"] == 359
    assert card["metrics"]["accuracy"] >= accuracy
    digits = open_dataset("digits")
    held_out = {digits.val.key(i) for i in range(len(digits.val))}
    learnt = {digits.train.key(i) for i in range(len(digits.train))}
    with (run / "predictions.csv").open(encoding="utf-8") as file:
        tested = {row["path"] for row in csv.DictReader(file)}
    assert tested == held_out
    assert not tested & learnt


def test_digits_it_never_saw(demo: Any) -> None:
    learnt_and_tested(demo.run, accuracy=0.3)  # chance is 0.1


@pytest.mark.proof
def test_accuracy_on_digits_it_never_saw(whole_demo: Any) -> None:
    learnt_and_tested(whole_demo.run, accuracy=0.975)


@pytest.mark.proof
def test_it_takes_at_most_ninety_seconds(whole_demo: Any) -> None:
    """Meant for two otherwise idle cores."""
    card = json.loads((whole_demo.run / "last" / "model.json").read_text(encoding="utf-8"))
    assert card["made_by"]["seconds"] <= 90
    assert whole_demo.seconds <= 90


def test_what_it_leaves_and_says(demo: Any) -> None:
    assert "<html" in (demo.run / "report.html").read_text(encoding="utf-8")
    with Image.open(demo.run / "explained.png") as picture:
        assert picture.width > 300
    assert "accuracy" in demo.text
    assert "Now type:" in demo.text
    for verb in ("predict", "evaluate", "explain", "train"):
        assert f"vitral {verb} " in demo.text
