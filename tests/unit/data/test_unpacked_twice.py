"""Archives that were unpacked twice: a copy is no class, and it is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from drawn import draw_noise, write_text
from vitral.data.datasets import open_dataset, open_for_scoring

FLOWERS = [f"{name}/{i}.png" for name in ("daisy", "rose") for i in range(4)]


def said(source: Path) -> str:
    return "\n".join(one.sentence for one in open_dataset(source).decisions)


@pytest.mark.parametrize(
    "copy", ["flowers", "data/flowers", "archive (1)", "zz"], ids=["again", "deeper", "1", "other"]
)
def test_a_tree_inside_itself_is_no_class(tmp_path, copy):
    root = draw_noise(tmp_path / "flowers", FLOWERS)
    once = open_dataset(root)
    for name in ("daisy", "rose"):
        shutil.copytree(root / name, root / copy / name)
    data = open_dataset(root)
    assert data.classes == ("daisy", "rose")
    assert len(data.train) + len(data.val) == 8
    assert data.fingerprint == once.fingerprint
    top = copy.partition("/")[0]
    assert f"{top}/ holds the pictures of the class folders beside it again (8 of its 8" in said(
        root
    )
    assert len(open_for_scoring(root, ["rose", "daisy"]).split) == 8


@pytest.mark.parametrize("copy", ["rose (1)", "rose - Copy", "rose_copy", "rose copy 2"])
def test_a_class_folder_beside_its_copy(tmp_path, copy):
    root = draw_noise(tmp_path, FLOWERS)
    shutil.copytree(root / "rose", root / copy)
    assert open_dataset(root).classes == ("daisy", "rose")
    assert f"{copy}/ holds the pictures of rose/ again (4 of its 4" in said(root)


@pytest.mark.parametrize("copy", ["flowers (1)", "flowers-master"])
def test_two_trees_beside_each_other(tmp_path, copy):
    draw_noise(tmp_path / "flowers", FLOWERS)
    shutil.copytree(tmp_path / "flowers", tmp_path / copy)
    assert open_dataset(tmp_path).classes == ("daisy", "rose")
    assert f"{copy}/ holds the pictures of flowers/ again" in said(tmp_path)


def test_a_training_part_unpacked_into_itself(tmp_path):
    draw_noise(tmp_path / "train", FLOWERS)
    draw_noise(tmp_path / "val", FLOWERS)
    for name in ("daisy", "rose"):
        shutil.copytree(tmp_path / "train" / name, tmp_path / "train" / "train" / name)
    data = open_dataset(tmp_path)
    assert data.classes == ("daisy", "rose") and len(data.train) == 8
    assert "train/train/ holds the pictures of the class folders beside it again" in said(tmp_path)


def test_most_of_it_is_enough_and_other_pictures_are_a_class(tmp_path):
    root = draw_noise(tmp_path / "most", FLOWERS)
    for name in ("daisy", "rose"):
        shutil.copytree(root / name, root / "flowers" / name)
    (root / "rose" / "0.png").unlink()
    assert "(7 of its 8" in said(root) and open_dataset(root).classes == ("daisy", "rose")

    other = draw_noise(tmp_path / "other", [*FLOWERS, *(f"blurred/{name}" for name in FLOWERS)])
    assert open_dataset(other).classes == ("blurred", "daisy", "rose")
    same_size = tmp_path / "bmp"
    for name in ("cat", "cat (1)"):  # as long, and another picture
        write_text(same_size, {f"{name}/note.txt": ""})
    draw_noise(same_size, ["cat/0.bmp", "cat/1.bmp", "cat (1)/0.bmp", "cat (1)/1.bmp"])
    assert open_dataset(same_size).classes == ("cat", "cat (1)")
