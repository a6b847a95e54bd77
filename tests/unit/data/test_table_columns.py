"""Tables as people hand them round: what the columns are, and what is said of the choice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drawn import draw_noise
from vitral.data.csv_files import Table
from vitral.data.datasets import open_dataset, open_for_scoring
from vitral.data.decisions import Decision
from vitral.data.table_columns import Sheet, read_sheet
from vitral.errors import DataError

NAMES = [f"{number:02}.png" for number in range(12)]


def sheet(folder: Path, text: str | bytes, name: str = "list.csv") -> Sheet:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_sheet(path)


def rows(sheet: Sheet) -> list[tuple[str, tuple[str, ...]]]:
    return [(row.name, row.labels) for row in sheet.rows]


def said(decisions: list[Decision] | tuple[Decision, ...]) -> str:
    return "\n".join(one.sentence for one in decisions)


# ------------------------------------------------------------------ one column for each class


@pytest.mark.parametrize("yes, no", [("1", "0"), ("1.0", "0.0"), ("True", "false"), ("yes", "no")])
def test_one_yes_in_each_row_is_one_label(tmp_path, yes, no):
    text = f"filename, cat, dog\na.png, {yes}, {no}\nb.png, {no}, {yes}\n"
    found = sheet(tmp_path, text)
    assert rows(found) == [("a.png", ("cat",)), ("b.png", ("dog",))] and not found.multi_label
    assert "a column for each class, cat, dog: one yes in each row" in said(found.decisions)


def test_any_number_of_yes_is_any_number_of_labels(tmp_path):
    found = sheet(tmp_path, "image,cat,dog,age\na.png,1,1,7\nb.png,0,0,9\n")
    assert rows(found) == [("a.png", ("cat", "dog")), ("b.png", ())] and found.multi_label
    assert "not read: age" in said(found.decisions)


def test_what_is_unknown_is_no_and_said(tmp_path):
    found = sheet(tmp_path, "Path,Edema,Fracture\na.jpg,1.0,\nb.jpg,-1.0,0.0\n")
    assert rows(found) == [("a.jpg", ("Edema",)), ("b.jpg", ())]
    assert "neither yes nor no (1 -1 and 1 empty) are no" in said(found.decisions)
    found = sheet(tmp_path, "image_id,Bald,Young\na.jpg,-1,1\nb.jpg,1,1\n")
    assert rows(found) == [("a.jpg", ("Young",)), ("b.jpg", ("Bald", "Young"))]
    assert "-1 is the no of list.csv" in said(found.decisions)


def test_a_train_may_be_a_class_beside_others(tmp_path):
    found = sheet(tmp_path, "image,car,train\na.png,1,0\nb.png,0,1\n")
    assert rows(found) == [("a.png", ("car",)), ("b.png", ("train",))] and not found.parts


# ------------------------------------------------------------------ several labels in a cell


@pytest.mark.parametrize(
    "cells",
    [
        ["cat clear", "cat haze", "dog clear", "dog haze"],
        ['"cat,clear"', '"cat, haze"', '"dog,clear"', '"dog,haze"'],
        ["cat|clear", "cat|haze", "dog|clear", "dog|haze"],
        [
            "\"['cat', 'clear']\"",
            "\"['haze', 'cat']\"",
            "\"['dog', 'clear']\"",
            "\"['dog','haze']\"",
        ],
        ['"[""cat"", ""clear""]"', "[cat haze]", "\"['dog' 'clear']\"", "[dog haze]"],
    ],
)
def test_tags(tmp_path, cells):
    text = "image,tags\n" + "".join(f"{i}.png,{cell}\n" for i, cell in enumerate(cells))
    found = sheet(tmp_path, text)
    expected = [("cat", "clear"), ("cat", "haze"), ("clear", "dog"), ("dog", "haze")]
    assert [row.labels for row in found.rows] == expected and found.multi_label
    assert "several labels in a cell" in said(found.decisions)


def test_a_name_of_two_words_stays_one_class(tmp_path):
    for column in ("label", "labels"):
        birds = ["CAPE MAY WARBLER", "CAPE ROCK THRUSH", "EMU"]
        text = f"image,{column}\n" + "".join(f"{i}.png,{bird}\n" for i, bird in enumerate(birds))
        found = sheet(tmp_path, text)
        assert [row.labels for row in found.rows] == [(bird,) for bird in birds]
        assert not found.multi_label
    assert "'CAPE MAY WARBLER' is taken as one label; if it is several, write |" in said(
        found.decisions
    )


def test_several_labels_with_one_in_each_row_are_one_label(tmp_path):
    assert not sheet(tmp_path, "path,labels\na.png,x\nb.png,y\n").multi_label
    assert sheet(tmp_path, "path,labels\na.png,x\nb.png,\n").multi_label


# ------------------------------------------------------------------ the split


@pytest.mark.parametrize(
    ("column", "values", "parts"),
    [
        ("split", "train train valid test", "train train val test"),
        ("Subset", "Training Training dev dev", "train train val val"),
        ("data set", "train train holdout eval", "train train val val"),
        ("Usage", "Training PublicTest PrivateTest Training", "train test test train"),
        ("ml_use", "TRAIN TRAIN VALIDATION TEST", "train train val test"),
        ("split", "train train test UNASSIGNED", "train train test None"),
        ("is_valid", "False False True True", "train train val val"),
        ("is_train", "1 1 1 0", "train train train val"),
        ("is_test", "no no no yes", "train train train test"),
        ("colour", "train test train test", "train test train test"),
        ("test", "0 0 1 0", "train train test train"),
    ],
)
def test_a_column_says_the_split(tmp_path, column, values, parts):
    lines = [f"{i}.png,{'ab'[i % 2]},{value}" for i, value in enumerate(values.split())]
    found = sheet(tmp_path, f"path,label,{column}\n" + "\n".join(lines))
    assert [str(row.part) for row in found.rows] == parts.split()
    assert f"has a split in its column '{column}'" in said(found.decisions)


def test_a_split_that_is_not_understood_is_said_or_refused(tmp_path):
    found = sheet(tmp_path, "path,label,fold\na.png,x,0\nb.png,y,1\n")
    assert not found.parts and "holds numbers ('0', '1')" in said(found.decisions)
    found = sheet(tmp_path, "path,label,split\na.png,x,north\nb.png,y,south\n")
    assert not found.parts and "it is not used" in said(found.decisions)
    with pytest.raises(DataError, match=r"column 'split' .*'extra' is none that is known"):
        sheet(tmp_path, "path,label,split\na.png,x,train\nb.png,y,extra\n")


def test_paths_may_say_the_split(tmp_path):
    text = "file_name,label\ntrain/a.png,x\ntrain/b.png,y\ntest/c.png,x\n"
    assert [row.part for row in sheet(tmp_path, text).rows] == ["train", "train", "test"]
    text = "file_name,label\ntrain/a.png,train\ntest/b.png,test\n"  # a class is called train
    assert not sheet(tmp_path, text).parts


def test_a_table_with_a_split_is_divided_as_it_says(tmp_path):
    draw_noise(tmp_path, NAMES)
    part = ["train"] * 6 + ["val"] * 2 + ["test"] * 3 + [""]
    lines = [f"{n},{'ab'[i % 2]},{part[i]}\n" for i, n in enumerate(NAMES)]
    path = tmp_path / "all.csv"
    path.write_text("path,label,split\n" + "".join(lines))
    data = open_dataset(path)
    assert [data.train.key(row) for row in range(len(data.train))] == NAMES[:6]
    assert [data.val.key(row) for row in range(len(data.val))] == NAMES[6:8]
    assert "1 rows of none, which are not used" in said(data.decisions)
    advice = f"vitral evaluate RUN {path}@test"
    assert advice in said(data.decisions)
    assert len(open_for_scoring(f"{path}@test", ["a", "b"]).split) == 3
    assert len(open_for_scoring(path, ["a", "b"]).split) == 2
    with pytest.raises(DataError, match=r"'tset' is no part of a split; write .*@train, @val"):
        open_dataset(f"{path}@tset")
    path.write_text("path,label\n" + "".join(line[:8] + "\n" for line in lines))
    with pytest.raises(DataError, match="has no rows of test: it has no split"):
        open_dataset(f"{path}@test")


# ------------------------------------------------------------------ which column is what


def test_numbers_with_names_beside_them_take_the_names(tmp_path):
    text = "path,label,class_name\na.png,0,cat\nb.png,1,dog\nc.png,0,cat\n"
    found = sheet(tmp_path, text)
    assert [row.labels for row in found.rows] == [("cat",), ("dog",), ("cat",)]
    assert "'class_name' of list.csv is the label, not 'label'" in said(found.decisions)
    found = sheet(tmp_path, "path,label,category\na.png,cat,animal\nb.png,dog,animal\n")
    assert [row.labels for row in found.rows] == [("cat",), ("dog",)]
    assert "'label' of list.csv is the label, not 'category'" in said(found.decisions)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Width,ClassId,Path\n4,7,a.png\n", ""),
        ("id,breed\na,7\n", ""),
        ("filename,kind\na.png,7\n", "the only other column of list.csv, 'kind'"),
        (",where,label\n0,a.png,7\n", "Column 'where' of list.csv names the pictures"),
        ("url,file,label\nhttp://x/1,a.png,7\n", ""),
        ("a.png,7\nb.png,8\n", ""),
        ("id,filename,label\n5,a.png,7\n", ""),
    ],
)
def test_columns(tmp_path, text, sentence):
    found = sheet(tmp_path, text)
    assert found.rows[0].labels == ("7",) and found.rows[0].name in ("a.png", "a")
    assert sentence in said(found.decisions)


def test_what_holds_no_labels_says_which_columns_it_has(tmp_path):
    with pytest.raises(DataError, match=r"which is the label.*Call that one label.*'age', 'sex'"):
        sheet(tmp_path, "image,age,sex\na.png,3,m\n")
    with pytest.raises(DataError, match=r"pictures on the web, such as http://x/1\.png; download"):
        sheet(tmp_path, "image,label\nhttp://x/1.png,m\n")


@pytest.mark.parametrize(
    "header",
    [
        "label," + ",".join(f"pixel{i}" for i in range(784)),
        "label," + ",".join(f"{1 + i // 28}x{1 + i % 28}" for i in range(784)),
        "7," + ",".join("0" for i in range(784)),
        "emotion,pixels,Usage",
    ],
)
def test_pictures_own_pixels_are_named_for_what_they_are(tmp_path, header):
    row = "1," + " ".join(["7"] * 2304) + ",Training" if "emotion" in header else "1" + ",7" * 784
    with pytest.raises(
        DataError,
        match=r"holds the pictures themselves.*PIL\.Image\.fromarray.*reshape\((28, 28|48, 48)\)",
    ):
        sheet(tmp_path, f"{header}\n{row}\n")


# ------------------------------------------------------------------ other files than CSV


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.tsv", "path\tlabel\na b.png\tcat\nc.png\tdog\n"),
        ("list.csv", "sep=;\npath;label\na b.png;cat\nc.png;dog\n"),
        ("list.csv", "\ufeffpath,label\r\na b.png,cat\r\nc.png,dog\r\n"),
        ("list.csv", "path|label\na b.png|cat\nc.png|dog\n"),
        ("list.txt", "a b.png cat\nc.png dog\n"),
        ("list.txt", "a b.png cat\nc.png dog\n"),
        ("list.txt", "# a comment\na b.png,cat\n\nc.png,dog\n"),
        (
            "list.jsonl",
            '{"file_name": "a b.png", "label": "cat"}\n{"label":"dog","file_name":"c.png"}',
        ),
        ("list.json", '[{"image": "a b.png", "label": "cat"}, {"image": "c.png", "label": "dog"}]'),
        ("list.json", '{"a b.png": "cat", "c.png": "dog"}'),
        ("list.json", '{"cat": ["a b.png"], "dog": ["c.png"]}'),
        ("list.json", '{"labels": [["a b.png", "cat"], ["c.png", "dog"]]}'),
    ],
)
def test_other_files_than_csv(tmp_path, name, text):
    assert rows(sheet(tmp_path, text, name)) == [("a b.png", ("cat",)), ("c.png", ("dog",))]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_encodings(tmp_path, encoding):
    text = "path,label\na.png,고양이\nb.png,개\n"
    found = sheet(tmp_path, text.encode(encoding))
    assert [row.labels for row in found.rows] == [("고양이",), ("개",)]


def test_coco(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 5}, {"image_id": 2, "category_id": 6}],
    }
    found = sheet(tmp_path, json.dumps(content), "train.json")
    assert rows(found) == [("a.png", ("cat",)), ("b.png", ("dog",))] and not found.multi_label
    content["annotations"].append({"image_id": 2, "category_id": 5})
    found = sheet(tmp_path, json.dumps(content), "train.json")
    assert rows(found)[1] == ("b.png", ("cat", "dog")) and found.multi_label
    del content["categories"]
    with pytest.raises(DataError, match=r"not the images, categories .*'categories' is missing"):
        sheet(tmp_path, json.dumps(content), "train.json")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.jsonl", '{"path": "a.png"}\nno json\n', "line 2 is no JSON object"),
        ("a.json", "{", "is no JSON"),
        ("a.json", "[1, 2]", "is no table; Vitral reads a list of objects"),
    ],
)
def test_json_that_is_no_table(tmp_path, name, text, sentence):
    with pytest.raises(DataError, match=sentence):
        sheet(tmp_path, text, name)


def test_a_list_of_paths_takes_the_folders_as_labels_and_says_so(tmp_path):
    found = sheet(tmp_path, "churros/1\ntacos/2\n", "train.txt")
    assert rows(found) == [("churros/1", ("churros",)), ("tacos/2", ("tacos",))]
    assert "the label of a picture is the folder it is in" in said(found.decisions)


# ------------------------------------------------------------------ where the pictures are


def places(folder: Path, text: str, name: str = "list.csv") -> list[str]:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    scanned = Table(path).scan()
    problems = [f"{problem.path}: {problem.reason}" for problem in scanned.problems]
    return scanned.names + problems


@pytest.mark.parametrize(
    "written",
    [
        "cat/01",
        "C:\\data\\cat\\01.png",
        "/home/me/set/cat/01.png",
        "cat/01.jpg",
        "01",
        "./cat/01.png",
    ],
)
def test_pictures_are_found_whatever_stands_before_or_after_their_names(tmp_path, written):
    draw_noise(tmp_path, ["images/cat/01.png", "images/cat/02.png"])
    text = "path,label\n" + written + ",a\n" + written.replace("01", "02") + ",b\n"
    assert places(tmp_path, text) == ["images/cat/01.png", "images/cat/02.png"]
    decisions = Table(tmp_path / "list.csv").scan().decisions
    assert "is read as images/cat/01.png, and 2 of them are found so" in said(decisions)


def test_a_list_beside_the_pictures_in_a_folder_of_lists(tmp_path):
    draw_noise(tmp_path, ["images/cat/01.png", "images/dog/02.png"])
    found = places(tmp_path, "path,label\ncat/01,a\ndog/02,b\n", "meta/list.csv")
    assert found == ["../images/cat/01.png", "../images/dog/02.png"]


def test_a_name_that_could_be_several_is_a_problem(tmp_path):
    draw_noise(tmp_path, ["a/1.png", "b/1.png", "b/2.png"])
    found = places(tmp_path, "path,label\n1,x\n2,y\n")
    assert found == ["b/2.png", "1: Line 2 of list.csv could mean a/1.png, b/1.png; write its "
                     "folder, too."]  # fmt: skip


def test_a_copy_of_all_in_another_format_is_passed_over(tmp_path):
    draw_noise(tmp_path, [f"{folder}/{i}.{end}" for i in range(3) for folder, end in
                          (("jpg", "jpg"), ("tif", "tif"))])  # fmt: skip
    text = "image_name,tags\n0,a b\n1,a\n2,b\n"
    assert places(tmp_path, text) == ["jpg/0.jpg", "jpg/1.jpg", "jpg/2.jpg"]


def test_a_picture_of_another_split_is_not_taken_for_one_that_is_missing(tmp_path):
    draw_noise(tmp_path, ["train/1.png", "train/2.png"])
    found = places(tmp_path, "path,label\nval/1.png,x\nval/2.png,y\n")
    assert found == [f"val/{i}.png: Line {i + 1} of list.csv names no file." for i in (1, 2)]
    draw_noise(tmp_path, ["all/train/1.png", "all/val/9.png"])
    found = places(tmp_path, "path,label\nval/9.png,x\nval/2.png,y\n")
    assert found == ["all/val/9.png", "val/2.png: Line 3 of list.csv names no file."]


# ------------------------------------------------------------------ careless tables


def test_a_comma_without_quotes_does_not_cut_a_label_short(tmp_path):
    found = sheet(tmp_path, "path,label\na.png,tench, Tinca tinca\nb.png,shark,\n")
    assert "3 cells, and the first line names 2 columns" in found.rows[0].lacks
    assert not found.rows[1].lacks, "an empty cell at the end is nothing"
    draw_noise(tmp_path, ["a.png", "b.png"])
    with pytest.raises(DataError, match=r"Line 2 of list\.csv has 3 cells.*quotes around"):
        open_dataset(tmp_path / "list.csv")


def test_what_programs_write_for_empty_cells_is_no_class(tmp_path):
    found = sheet(tmp_path, "path,label\na.png,1.0\nb.png,nan\nc.png,0.0\n")
    assert [(row.labels, row.lacks) for row in found.rows] == [
        (("1",), ""), ((), "no label"), (("0",), "")
    ]  # fmt: skip


def test_amounts_and_words_of_every_row_are_no_classes(tmp_path):
    amounts = "".join(f"{i}.png,{i / 7:.4f}\n" for i in range(30))
    with pytest.raises(DataError, match=r"30 different numbers such as 0\.0000: an amount"):
        sheet(tmp_path, "path,label\n" + amounts)
    captions = "".join(f"{i}.png,a picture of {i}\n" for i in range(30))
    with pytest.raises(DataError, match="each of its 30 rows has another 'text'"):
        sheet(tmp_path, "file_name,text\n" + captions)


def test_boxes_are_not_used_and_said(tmp_path):
    text = "filename,width,class,xmin,ymin,xmax,ymax\na.png,4,cat,0,0,1,1\nb.png,4,dog,0,0,1,1\n"
    found = sheet(tmp_path, text)
    assert "boxes of list.csv (xmin, ymin, xmax, ymax) are not used" in said(found.decisions)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("a.xlsx", "workbooks.*Save the table as CSV"), ("a.zip", "archives.*Unpack them"),
     ("a.mp4", "videos.*ffmpeg"), ("a.txt", "is a file; name a folder"),
     ("a.json", "a.json is no JSON: ")],
)  # fmt: skip
def test_files_that_are_no_tables(tmp_path, name, sentence):
    (tmp_path / name).write_text("no picture here\nnor here")
    with pytest.raises(DataError, match=sentence):
        open_dataset(tmp_path / name)


def test_numbers_with_blanks_between_are_several_labels(tmp_path):
    found = sheet(tmp_path, "Id,Target\na,16 0\nb,7\n")
    assert [row.labels for row in found.rows] == [("0", "16"), ("7",)] and found.multi_label
