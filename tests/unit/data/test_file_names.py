"""Labels in the names of files: what is a class, what is a camera's number."""

from __future__ import annotations

from pathlib import Path

import pytest

from drawn import draw_noise
from vitral.data.datasets import open_dataset, open_for_scoring
from vitral.data.sources import Dataset
from vitral.errors import DataError


def named(root: Path, pattern: str, *labels: str, each: int = 4) -> Path:
    return draw_noise(root, [pattern.format(label, i) for label in labels for i in range(each)])


def said(data: Dataset) -> str:
    return "\n".join(one.sentence for one in data.decisions)


@pytest.mark.parametrize(
    "pattern",
    ["{}.{}.png", "{}_{}.png", "{}-{}.png", "{} ({}).png", "{1:04}_{0}.png", "{}{}.png"],
)
def test_a_class_and_a_number(tmp_path, pattern):
    data = open_dataset(named(tmp_path, pattern, "cat", "dog"))
    assert data.classes == ("cat", "dog")
    assert len(data.train) + len(data.val) == 8
    first = pattern.format("cat", 0)
    assert f"The labels are those in the names of the files: {first} is 'cat', 2 classes" in said(
        data
    )
    label = data.classes[data.train.labels[0]]
    assert label in data.train.key(0)
    assert len(open_for_scoring(tmp_path, ["dog", "cat"]).split) == 8


def test_dogs_and_cats_as_they_are_unpacked(tmp_path):
    named(tmp_path, "train/{}.{}.png", "cat", "dog")
    draw_noise(tmp_path, [f"test1/{i}.png" for i in range(4)])
    data = open_dataset(tmp_path)
    assert data.classes == ("cat", "dog") and len(data.train) + len(data.val) == 8
    assert "train/" in said(data) and "test1/ has images without labels" in said(data)


def test_breeds_of_several_words_and_a_part_with_labels(tmp_path):
    breeds = ("Abyssinian", "american_pit_bull_terrier")
    named(tmp_path, "train/{}_{}.png", *breeds)
    named(tmp_path, "val/{}_{}.png", *breeds, each=2)
    data = open_dataset(tmp_path)
    assert data.classes == breeds and (len(data.train), len(data.val)) == (8, 4)
    folder = named(tmp_path / "images", "images/{}_{}.png", "n01440764", "n02102040")
    assert set(open_dataset(folder).classes) == {"n01440764", "n02102040"}


@pytest.mark.parametrize(
    ("pattern", "labels"),
    [
        ("{}_{:04}.png", ("IMG", "DSC")),
        ("{}_{}.png", ("train", "test")),
        ("{}_{}.png", ("patient1", "patient2")),
        ("{}_{}.png", ("IMG_20230101", "IMG_20230102")),
        ("{}_{}.png", ("cat",)),
        ("{}_0_1_{}.png", ("25", "61")),
        ("{}.png", tuple("abcdefgh")),
    ],
)
def test_other_names_say_no_class(tmp_path, pattern, labels):
    named(tmp_path, pattern, *labels)
    with pytest.raises(DataError, match="no class folders"):
        open_dataset(tmp_path)


def test_a_name_without_a_class_is_left_out_and_said(tmp_path):
    root = named(tmp_path, "{}.{}.png", "cat", "dog", each=20)
    draw_noise(root, ["photo.png"])
    data = open_dataset(root)
    assert len(data.train) + len(data.val) == 40
    reasons = [problem.reason for problem in data.problems]
    assert "1 image has no class in the name: not used." in reasons
