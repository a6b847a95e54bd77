"""What was chosen for the user is said once, in order, and alike by the check and the training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn import draw_folder, spoil
from vitral.data.check import check
from vitral.data.datasets import open_dataset
from vitral.data.decisions import Decision, in_order, to_json, to_lines


def test_lines_come_by_topic_and_once() -> None:
    split = Decision("split", "Half.")
    layout = Decision("layout", "A folder.")
    assert in_order([split, layout, split]) == (layout, split)
    assert to_lines([split, layout], 9) == ["layout    A folder.", "split     Half."]
    assert to_json([split]) == [{"topic": "split", "sentence": "Half."}]


def said(folder: Path) -> str:
    data = open_dataset(folder)
    assert check(folder, full=True).decisions == data.decisions
    return "\n".join(to_lines(data.decisions))


def test_a_folder_without_splits(tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "photos", kinds=2, each=6)
    text = said(folder)
    assert f"layout {folder}: class folders without splits." in text
    assert "labels The label of an image is the name of its class folder." in text
    assert "20 % of each class is held out, by seed 0; copies" in text
    assert "files" not in text and "pixels" not in text


@pytest.mark.parametrize(("name", "word"), [("val", "own"), ("test", "choose the best weights")])
def test_a_split_of_its_own(tmp_path: Path, name: str, word: str) -> None:
    draw_folder(tmp_path / "photos" / "train", kinds=2, each=4)
    draw_folder(tmp_path / "photos" / name, kinds=2, each=2, first=9)
    text = said(tmp_path / "photos")
    assert word in text and f"{tmp_path / 'photos' / name}" in text


def test_files_and_pixels_are_counted(tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "photos", kinds=2, each=8)
    pictures = sorted(path for path in folder.rglob("*.*"))
    spoil(pictures[0])
    for path in pictures[1:3]:
        Image.open(path).convert("RGBA").save(path.with_suffix(".png"))
        path.unlink()
    Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(folder / "stray.png")
    text = said(folder)
    assert "2 pictures are each pasted on white" in text
    assert "Not used, since they stand beside the classes (1): stray.png." in text
    assert pictures[0].name in text


def test_without_labels_none_are_spoken_of(tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "photos", kinds=2, each=6)
    text = "\n".join(to_lines(open_dataset(folder, labelled=False).decisions))
    assert "No labels are used." in text and "class folder" not in text
    assert "20 % is held out" in text


def test_a_table_says_which_column_is_the_label_and_where_the_split_stands(tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "photos", kinds=2, each=6)
    lines = ["filename,category,split"]
    for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
        part = "valid" if number % 3 == 0 else "train"
        lines.append(f"photos/{path.relative_to(folder)},{path.parent.name},{part}")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    sentences = [one.sentence for one in open_dataset(tmp_path / "list.csv").decisions]
    assert "Column 'category' of list.csv is the label." in sentences
    assert sum("split" in sentence for sentence in sentences) == 1
