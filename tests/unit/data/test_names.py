"""One table of names for columns and parts of a split, in every kind of source."""

from __future__ import annotations

import pytest

from vitral.data import names


@pytest.mark.parametrize(
    ("name", "alone", "anywhere"),
    [
        *((name, "train", "train") for name in ("train", "Training", "train_set", "trainLabels")),
        *((name, "train", "train") for name in ("train2019", "trainval", "train-images", "TRAIN")),
        *((name, "val", "val") for name in ("val", "valid", "Validation", "dev", "eval")),
        *((name, "val", "val") for name in ("holdout", "hold-out", "held_out", "val_images")),
        *((name, "test", "test") for name in ("Test", "testing", "PublicTest", "test set 2")),
        *((name, "unlabelled", "unlabelled") for name in ("pred", "unlabeled", "test_pred")),
        ("seg_train", "train", "train"),
        ("asl_alphabet_test", None, "test"),
        ("train_station", None, "train"),
        *((name, None, None) for name in ("trains", "contest", "latest", "valley", "cat", "3", "")),
    ],
)
def test_the_part_of_a_split_that_a_name_speaks_of(name, alone, anywhere):
    assert names.part_of(name) == alone
    assert names.part_of(name, alone=False) == anywhere


def test_columns_are_known_whatever_their_case_and_punctuation():
    header = ["Image Index", "Finding Labels", "Class-ID", "LABEL", "x"]
    assert names.positions(header, names.PATH_COLUMNS) == [0]
    assert names.positions(header, names.LABEL_COLUMNS) == [3, 2, 1]


def test_the_plain_names_come_first_and_validation_before_test():
    parts = {name: name for name in ("test", "train_extra", "Valid", "train", "val_images")}
    assert names.divided(parts) == ("train", "Valid", "val")
    assert names.divided({"testing": 1, "cat": 2}) == (None, 1, "test")
    assert names.divided({"cat": 2}) == (None, None, "val")
