"""Folders with tables: lists of parts, a table in each part, tables beside class folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drawn import draw_noise, hashes, write_text
from vitral.data.check import check
from vitral.data.datasets import list_images, open_dataset, open_for_scoring
from vitral.data.sources import Dataset, Division, Split
from vitral.errors import DataError

ROWS = [("cat" if i % 2 else "dog", f"{i:02}.png") for i in range(12)]


def csv(rows, folder: str = "", header: str = "file_name,label") -> str:
    return header + "\n" + "".join(f"{folder}{name},{label}\n" for label, name in rows)


def jsonl(rows) -> str:
    return "\n".join(json.dumps({"file_name": name, "label": label}) for label, name in rows)


def said(data: Dataset) -> str:
    return "\n".join(one.sentence for one in data.decisions)


def keys(split: Split) -> list[str]:
    return [split.key(row) for row in range(len(split))]


def flat(root: Path) -> Path:
    """Pictures in train/ and validation/, in no class."""
    draw_noise(root / "train", [name for _, name in ROWS[:8]])
    return draw_noise(root / "validation", [name for _, name in ROWS[8:]]).parent


@pytest.mark.parametrize("name", ["metadata.csv", "_classes.csv", "labels.csv", "metadata.jsonl"])
def test_a_table_in_each_part(tmp_path, name):
    write = jsonl if name.endswith("l") else csv
    files = {f"train/{name}": write(ROWS[:8]), f"validation/{name}": write(ROWS[8:])}
    write_text(flat(tmp_path), files)
    before = hashes(tmp_path)
    data = open_dataset(tmp_path)
    assert data.classes == ("cat", "dog") and (len(data.train), len(data.val)) == (8, 4)
    assert keys(data.val) == [f"validation/{name}" for _, name in ROWS[8:]]
    assert data.train.read(0) == (tmp_path / data.train.key(0)).read_bytes()
    assert f"The labels are those of train/{name}, validation/{name}." in said(data)
    assert len(open_for_scoring(tmp_path, ["dog", "cat"]).split) == 4
    assert len(open_for_scoring(tmp_path / "train", ["dog", "cat"]).split) == 8
    assert hashes(tmp_path) == before


def test_the_advice_for_pictures_without_class_folders_works(tmp_path):
    flat(tmp_path)
    with pytest.raises(DataError, match=r"train has images but no class folders.*train/train\.csv"):
        open_dataset(tmp_path)
    write_text(tmp_path, {"train/train.csv": csv(ROWS[:8], header="path,label")})
    data = open_dataset(tmp_path)
    assert len(data.train) + len(data.val) == 8
    assert "validation/ has images without labels" in said(data)


@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv", "anything.csv"])
def test_one_table_at_the_root_with_the_parts_in_its_paths(tmp_path, name):
    rows = csv(ROWS[:8], "train/") + csv(ROWS[8:], "validation/").partition("\n")[2]
    data = open_dataset(write_text(flat(tmp_path), {name: rows}))
    assert (len(data.train), len(data.val)) == (8, 4)
    assert "has a split in the folders of its paths: 8 rows of train, 4 rows of val" in said(data)


@pytest.mark.parametrize(
    "names", ["train.csv val.csv", "train_labels.csv test_labels.csv", "Training.tsv dev.tsv",
              "train.txt val.txt", "train.jsonl valid.jsonl", "train2019.json val2019.json"]
)  # fmt: skip
def test_a_list_for_each_part(tmp_path, names):
    draw_noise(tmp_path / "images", [name for _, name in ROWS])
    for name, rows in zip(names.split(), (ROWS[:8], ROWS[8:]), strict=True):
        match name.rpartition(".")[2]:
            case "jsonl":
                text = jsonl(rows)
            case "json":
                text = json.dumps({name: label for label, name in rows})
            case "txt":
                text = "".join(f"{name} {label}\n" for label, name in rows)
            case "tsv":
                text = csv(rows).replace(",", "\t")
            case _:
                text = csv(rows)
        write_text(tmp_path, {name: text})
    data = open_dataset(tmp_path)
    assert (len(data.train), len(data.val)) == (8, 4) and data.classes == ("cat", "dog")


def test_three_lists_and_one_without_labels(tmp_path):
    draw_noise(tmp_path, [name for _, name in ROWS])
    lists = {"train.csv": csv(ROWS[:6]), "val.csv": csv(ROWS[6:9]), "test.csv": csv(ROWS[9:])}
    data = open_dataset(write_text(tmp_path, lists))
    assert keys(data.val) == [name for _, name in ROWS[6:9]]
    assert f"vitral evaluate RUN {tmp_path / 'test.csv'}" in said(data)
    assert len(open_for_scoring(tmp_path / "test.csv", ["cat", "dog"]).split) == 3
    alone = open_dataset(tmp_path / "train.csv")
    assert f"test.csv, val.csv beside train.csv is not used; name the folder, {tmp_path}," in said(
        alone
    )
    write_text(tmp_path, {"val.csv": "file_name\n08.png\n"})
    assert open_dataset(tmp_path).val.name == "test"
    assert "val.csv has no labels that can be read and is not used" in said(open_dataset(tmp_path))


def test_one_part_may_have_several_labels_and_the_other_one_in_each_row(tmp_path):
    """Both are of several labels then: one network answers for both."""
    draw_noise(tmp_path, [name for _, name in ROWS])
    text = "image,cat,dog\n" + "".join(f"{name},1,1\n" for _, name in ROWS[:8])
    other = "image,cat,dog\n" + "".join(f"{name},1,0\n" for _, name in ROWS[8:])
    data = open_dataset(write_text(tmp_path, {"train.csv": text, "val.csv": other}))
    assert data.train.labels.tolist() == [[True, True]] * 8
    assert data.val.labels.tolist() == [[True, False]] * 4
    assert not check(tmp_path).refusal


# ------------------------------------------------------------------ beside class folders


def classes(root: Path) -> Path:
    return draw_noise(root, [f"{label}/{name}" for label, name in ROWS])


def test_a_table_that_cannot_be_read_leaves_the_class_folders(tmp_path):
    classes(tmp_path / "train")
    write_text(tmp_path, {"train.csv": "Width,Height\n3,4\n"})
    data = open_dataset(tmp_path)
    assert data.classes == ("cat", "dog")
    assert "train.csv is not read" in said(data) and "the class folders are" in said(data)


def test_a_table_that_says_the_same_leaves_the_class_folders(tmp_path):
    rows = "".join(f"{label}/{name},{label}\n" for label, name in ROWS)
    write_text(classes(tmp_path), {"birds.csv": "path,label\n" + rows})
    data = open_dataset(tmp_path)
    assert "the class folders; birds.csv is not read" in said(data)


def test_a_table_with_other_labels_for_all_pictures_is_taken(tmp_path):
    """As where pictures lie in part_1 and part_2, which are no classes."""
    rows = "".join(f"{name[:2]},{'abc'[i % 3]}\n" for i, (_, name) in enumerate(ROWS))
    write_text(classes(tmp_path), {"meta.csv": "image_id,dx\n" + rows})
    data = open_dataset(tmp_path)
    assert data.classes == ("a", "b", "c")
    assert "The labels are those of meta.csv, not the folders." in said(data)
    one = "".join(f"{name},outdoors\n" for _, name in ROWS)
    write_text(tmp_path, {"meta.csv": "image_id,dx\n" + one})
    assert open_dataset(tmp_path).classes == ("cat", "dog"), "one label tells nothing apart"
    write_text(tmp_path, {"meta.csv": "image_id,dx\n00,a\n01,b\n"})
    assert open_dataset(tmp_path).classes == ("cat", "dog"), "two of twelve pictures"


def test_what_vitral_wrote_is_no_table_of_the_data(tmp_path):
    rows = csv([("x", name) for _, name in ROWS])
    write_text(
        classes(tmp_path), {"relabel.csv": rows, "predictions.csv": rows, "classes.csv": "a"}
    )
    assert open_dataset(tmp_path).classes == ("cat", "dog")


def test_flat_pictures_and_a_table_without_labels(tmp_path):
    draw_noise(tmp_path, [name for _, name in ROWS])
    write_text(tmp_path, {"notes.csv": "day,weather\n1,rain\n"})
    with pytest.raises(DataError, match=r"no table in it says the labels.*notes\.csv"):
        open_dataset(tmp_path)
    assert len(list_images([str(tmp_path)], 8).splits[0]) == 12, "they can be embedded"
    write_text(tmp_path, {"notes.csv": csv(ROWS)})
    assert list_images([str(tmp_path)], 8).classes == ("cat", "dog")


def test_a_table_in_one_part_and_class_folders_in_the_other(tmp_path):
    """As tiny-imagenet has them."""
    draw_noise(tmp_path, [f"train/{label}/images/{name}" for label, name in ROWS[:8]])
    draw_noise(tmp_path, [f"val/images/{name}" for _, name in ROWS[8:]])
    draw_noise(tmp_path, [f"test/images/t{name}" for _, name in ROWS[8:]])
    lines = "".join(f"{name}\t{label}\t0\t0\t9\t9\n" for label, name in ROWS[8:])
    data = open_dataset(write_text(tmp_path, {"val/val_annotations.txt": lines}))
    assert data.classes == ("cat", "dog") and (len(data.train), len(data.val)) == (8, 4)
    assert "test/ has images without labels" in said(data)


@pytest.mark.parametrize("asked", ["validation", "validation/metadata.csv", ""])
def test_what_training_held_out_is_known_again(tmp_path, asked):
    files = {"train/metadata.csv": csv(ROWS[:8]), "validation/metadata.csv": csv(ROWS[8:])}
    data = open_dataset(write_text(flat(tmp_path), files))
    division = Division(source=str(tmp_path), fingerprint=data.fingerprint)
    found = open_for_scoring(tmp_path / asked, data.classes, division=division)
    assert found.held_out_by_training and len(found.split) == 4


@pytest.mark.parametrize(
    ("pictures", "text", "sentence"),
    [
        (
            "images/{}.png",
            "id,gender,kind\n1,x,a\n2,y,b\n",
            r"which is the label\?.*'gender', 'kind'",
        ),
        ("train/{}_red.png", "Id,Target\n1,a\n2,b\n", "rows that name no file: 2"),
    ],
)
def test_where_no_folder_is_a_class_the_table_is_complained_of(tmp_path, pictures, text, sentence):
    draw_noise(tmp_path, [pictures.format(i) for i in (1, 2)])
    with pytest.raises(DataError, match=sentence):
        open_dataset(write_text(tmp_path, {"styles.csv": text}))


def test_class_folders_to_train_on_and_a_list_of_the_test_images(tmp_path):
    draw_noise(tmp_path, [f"Train/{label}/{name}" for label, name in ROWS[:6]])
    draw_noise(tmp_path, [f"Test/t{name}" for _, name in ROWS[6:]])
    rows = "".join(f"{label},Test/t{name}\n" for label, name in ROWS[6:])
    write_text(tmp_path, {"Test.csv": "ClassId,Path\n" + rows})
    data = open_dataset(tmp_path)
    assert (len(data.train), len(data.val), data.val.name) == (6, 6, "test")
    assert "labels of the held-out images are those of Test.csv" in said(data)
    assert "without labels" not in said(data)
    write_text(
        tmp_path, {"Test.csv": "Path,note\n" + "".join(f"Test/t{n},x y\n" for _, n in ROWS[6:])}
    )
    data = open_dataset(tmp_path)
    assert data.classes == ("cat", "dog") and data.val.key(0).startswith("Train/")
    assert "Test/ has images without labels" in said(data)


def test_the_advice_for_boxes_works(tmp_path):
    draw_noise(tmp_path, [f"train/images/{name}" for _, name in ROWS[:8]])
    draw_noise(tmp_path, [f"valid/images/{name}" for _, name in ROWS[8:]])
    write_text(tmp_path, {f"{part}/labels/1.txt": "0 1 1 1 1" for part in ("train", "valid")})
    with pytest.raises(DataError, match=r"boxes for a detector.*in a train\.csv \(path,label\)"):
        open_dataset(tmp_path)
    rows = "".join(f"images/{name},{label}\n" for label, name in ROWS[:8])
    write_text(tmp_path, {"train/train.csv": "path,label\n" + rows})
    data = open_dataset(tmp_path)
    assert data.classes == ("cat", "dog") and len(data.train) + len(data.val) == 8
    assert "valid/ has images without labels" in said(data)


def test_tables_one_folder_further_down(tmp_path):
    root = tmp_path / "archive"
    draw_noise(root, [f"train/train/{name}" for _, name in ROWS[:8]])
    draw_noise(root, [f"test/test/{name}" for _, name in ROWS[8:]])
    texts = {"train.csv": csv(ROWS[:8]), "test.csv": "file_name\n08.png\n"}
    data = open_dataset(write_text(root, texts).parent)
    assert data.classes == ("cat", "dog") and len(data.train) + len(data.val) == 8
    assert data.source == str(tmp_path)
    assert data.train.read(0) == (root / data.train.key(0)).read_bytes()
