"""The sentences about a folder: what, where, what to do. The cases are in test_images_datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitral.data.problems import (
    closest_class,
    divided_copies,
    empty_classes,
    missing,
    never_held_out,
    refuse_many_unreadable,
    refuse_rows,
    refuse_unscorable,
    sibling,
    too_small,
)
from vitral.data.sources import Files, Problem, ScanResult, Split
from vitral.errors import DataError


def test_a_close_name_is_suggested_and_otherwise_the_known_are_listed():
    assert closest_class("tulip", ["rose", "tulips"]) == "did you mean 'tulips'?"
    assert closest_class("x", ["rose", "lily"]) == "it knows rose, lily."


def test_a_built_in_name_is_suggested_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sibling(Path("shape")) == "did you mean shapes?"
    assert "digits, shapes" in sibling(Path("nowhere/at/all"))


@pytest.mark.parametrize(
    ("bad", "readable", "stops"),
    [(0, 10, False), (1, 1, False), (2, 197, True), (2, 198, False), (11, 1000, True)],
)
def test_more_than_one_percent_and_more_than_one_file_stop(bad, readable, stops):
    problems = [Problem(f"{index}.jpg", "The file is empty.") for index in range(bad)]
    problems += [Problem("a", "A remark.", "small")] * 50
    root = "photos"
    if stops:
        with pytest.raises(DataError, match=rf"{bad} of {readable + bad} files under photos"):
            refuse_many_unreadable(problems, readable, root, False)
    else:
        refuse_many_unreadable(problems, readable, root, False)
    refuse_many_unreadable(problems, readable, root, True)


def test_remarks_name_the_folder_relative_to_the_source(tmp_path):
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
    root, train, val = str(tmp_path), str(tmp_path / "train"), str(tmp_path / "val")
    found = ScanResult(Files(root, ("x",)), names=["x"], labels=[("cat",)], empty_classes=["dog"])
    assert [p.path for p in empty_classes(found, train, root)] == ["train/dog"]
    assert [p.path for p in too_small(found, root, root)] == ["cat"]
    (problem,) = missing(found, ["cat", "emu"], val, root)
    assert problem.path == "val/emu" and problem.code == "unmatched"
    assert missing(found, ["emu"], "list.csv", root)[0].path == "emu"


def test_rows_are_refused_kind_by_kind_and_two_kinds_may_be_allowed():
    problems = [Problem(f"{i}.jpg", "Line 3 names no file.", "missing") for i in range(5)]
    problems += [Problem("a", "Line 9 has no label.", "empty-row"), Problem("b", "x", "repeated")]
    found = ScanResult(Files("", ()), problems=problems)
    with pytest.raises(
        DataError, match=r"list\.csv .*no label: 1 \(a: .*; rows that name no file: 5"
    ):
        refuse_rows(found, "list.csv", allowed=False)
    refuse_rows(found, "list.csv", allowed=True)
    found.problems.append(Problem("c", "Lines 1, 2", "two-labels"))
    with pytest.raises(DataError, match="files with two labels: 1"):
        refuse_rows(found, "list.csv", allowed=True)


def test_copies_on_both_sides_are_told():
    found = ScanResult(Files("", ()), labels=[("cat",), ("cat",), ("dog",), ("dog",)])
    group_ids, train, val = np.array([0, 0, 2, 3]), np.array([0, 2]), np.array([1, 3])
    (problem,) = divided_copies(found, "photos", group_ids, train, val)
    assert (problem.path, problem.code) == ("cat", "leakage")


def split_of(labels, name="train") -> Split:
    labels = np.array(labels)
    keys = tuple(f"{name}/{row}" for row in range(len(labels)))
    return Split(name, labels, np.arange(len(labels)), Files("", keys))


@pytest.mark.parametrize(
    ("train", "val", "classes", "words"),
    [
        ([0, 1], [0, 1], ("cat", "cat"), "names 1 classes more than once, for example 'cat'"),
        ([0, 1], [0, -1], ("a", "b"), r"1 of the 2 held-out images of data have no .*val/1\."),
        ([-1, -1], [0, 1], ("a", "b"), r"2 of the 2 training images .* example train/0\."),
        ([[True], [False]], [[False], [False]], ("a",), "None of the 2 held-out .* be scored"),
        ([[False], [False]], [[True], [False]], ("a",), "None of the 2 training .* be learnt"),
    ],
)
def test_what_the_first_validation_would_refuse_is_refused_before(train, val, classes, words):
    with pytest.raises(DataError, match=words):
        refuse_unscorable(split_of(train), split_of(val, "val"), classes, "data")


def test_what_can_be_scored_is_not_refused():
    refuse_unscorable(split_of([0, 1]), split_of([0]), ("a", "b"), "data")
    refuse_unscorable(split_of([[True, False]]), split_of([[False, True]]), ("a", "b"), "data")


def test_a_class_of_several_that_no_held_out_image_has_is_named():
    val = split_of([[True, False, False], [True, True, False]], "val")
    single = [Problem("b", "One image.", "small")]
    assert never_held_out(val, ("a", "b", "c"), ("a", "b"), single) == []
    (absent,) = never_held_out(val, ("a", "b", "c"), ("a", "b", "c"), single)
    assert (absent.path, absent.code) == ("c", "unmatched")
    assert never_held_out(split_of([0, 0]), ("a", "b"), ("a", "b"), []) == []
