"""The sentences about a folder: what, where, what to do. The cases are in test_images_datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitral.errors import DataError
from vitral.images import complaints
from vitral.images.folders import Found
from vitral.images.sources import Problem


def test_a_close_name_is_suggested_and_otherwise_the_known_are_listed():
    assert complaints.closest("tulip", ["rose", "tulips"]) == "did you mean 'tulips'?"
    assert complaints.closest("x", ["rose", "lily"]) == "it knows rose, lily."
    assert complaints.listed(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_a_built_in_name_is_suggested_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert complaints.sibling(Path("shape")) == "did you mean shapes?"
    assert "digits, shapes" in complaints.sibling(Path("nowhere/at/all"))


@pytest.mark.parametrize(
    ("bad", "readable", "stops"),
    [(0, 10, False), (1, 1, False), (2, 197, True), (2, 198, False), (11, 1000, True)],
)
def test_more_than_one_percent_and_more_than_one_file_stop(bad, readable, stops):
    problems = [Problem(f"{index}.jpg", "The file is empty.") for index in range(bad)]
    problems += [Problem("a", "A remark.", "small")] * 50
    root = Path("photos")
    if stops:
        with pytest.raises(DataError, match=rf"{bad} of {readable + bad} files under photos"):
            complaints.refuse_many_unreadable(problems, readable, root, False)
    else:
        complaints.refuse_many_unreadable(problems, readable, root, False)
    complaints.refuse_many_unreadable(problems, readable, root, True)


def test_remarks_name_the_folder_relative_to_the_source():
    root = Path("photos")
    found = Found(names=["x"], classes=["cat"], sizes=[1], empty=["dog"])
    assert [p.path for p in complaints.empty(found, root / "train", root)] == ["train/dog"]
    assert [p.path for p in complaints.too_small(found, root, root)] == ["cat"]
    (problem,) = complaints.missing(found, ["cat", "emu"], root / "val", root)
    assert problem.path == "val/emu" and problem.code == "unmatched"
