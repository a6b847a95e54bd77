"""What is told of images that are not those that they were."""

from pathlib import Path

import pytest

from drawn import draw_folder
from vitral.data.contents import difference
from vitral.data.datasets import open_dataset


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for part, each in (("train", 6), ("val", 3)):
        draw_folder(tmp_path / "photos" / part, kinds=3, each=each)
    return tmp_path / "photos"


def test_counts_are_told_by_class(photos: Path) -> None:
    before = open_dataset(photos).contents
    assert {name: before[name] for name in ("train", "val")} == {"train": 18, "val": 9}
    name = next(iter(before["classes"]))
    assert before["classes"][name] == "6 train, 3 val"
    next((photos / "train" / name).iterdir()).unlink()
    now = open_dataset(photos).contents
    assert difference(before, now) == (
        f"there were 18 train, 9 val images and are 17 train, 9 val, "
        f"{name}: 6 train, 3 val, now 5 train, 3 val."
    )
    for part in ("train", "val"):
        (photos / part / name).rename(photos / part / "zebra")
    told = difference(before, open_dataset(photos).contents)
    assert f"{name}: 6 train, 3 val, and is gone" in told
    assert "zebra: 5 train, 3 val, and is new" in told


def test_as_many_others_are_told_by_what_is_other(photos: Path) -> None:
    before = open_dataset(photos).contents
    first = next((photos / "train").rglob("*.jpg"))
    first.write_bytes(first.read_bytes() + b"0")
    assert "other sizes" in difference(before, open_dataset(photos).contents)
    first.rename(first.with_name("renamed.jpg"))
    assert "other names" in difference(before, open_dataset(photos).contents)
    assert "other labels" in difference(before, before | {"labels": "", "sizes": ""})
    assert difference(before, before) == "other images are held out."
    assert difference({}, before) == "", "a run of an earlier version says nothing of them"


def test_many_classes_are_counted_together_and_several_labels_by_class(tmp_path: Path) -> None:
    many = draw_folder(tmp_path / "many", kinds=3, each=4)
    images = sorted(many.rglob("*.jpg"))[:2]
    for number in range(101):
        (many / f"class{number}").mkdir()
        for image in images:
            (many / f"class{number}" / image.name).write_bytes(image.read_bytes() + bytes([number]))
    assert "classes" not in open_dataset(many, allow_unreadable=True).contents
    table = tmp_path / "table.csv"
    rows = [f"{path},{'a|b' if i % 2 else 'a'}" for i, path in enumerate(many.glob("class?/*"))]
    table.write_text("\n".join(["path,labels", *rows]) + "\n")
    counts = open_dataset(table).contents["classes"]
    assert sum(int(text.split()[0]) for text in counts.values()) > 16
