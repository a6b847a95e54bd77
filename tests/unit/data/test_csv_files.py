"""CSV files as people make them: separators, columns, several labels, and rows that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitral.data.csv_files import Table
from vitral.data.datasets import open_dataset, open_for_scoring
from vitral.errors import DataError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    dice = np.random.default_rng(0)
    for index in range(12):
        noise = dice.integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index:02}.png")
    return tmp_path


def table(folder: Path, text: str, name: str = "list.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def scanned(folder: Path, text: str):
    return Table(table(folder, text)).scan()


ROWS = [(f"{index:02}.png", "cat" if index % 2 else "dog") for index in range(12)]


@pytest.mark.parametrize("header", ["path,label", "filename,class", "id,Image,extra,Category"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_columns_and_what_excel_writes(pictures, header, separator, encoding):
    columns = header.split(",")
    places = (0, 1) if len(columns) == 2 else (1, 3)
    lines = [columns]
    for row in ROWS:
        lines.append([""] * len(columns))
        lines[-1][places[0]], lines[-1][places[1]] = row
    text = "\r\n".join(separator.join(line) for line in lines) + "\r\n\r\n"
    found = Table(table(pictures, text, encoding=encoding)).scan()
    assert list(zip(found.names, found.labels, strict=True)) == [(n, (label,)) for n, label in ROWS]
    assert not found.multi_label and not found.problems


def test_paths_are_relative_to_the_file_and_may_lead_anywhere(pictures):
    below = pictures / "lists"
    below.mkdir()
    absolute = pictures / "01.png"
    text = f"path,label\n../00.png,a\n{absolute},b\n..\\02.png,c\n"
    found = scanned(below, text)
    assert sorted(found.names) == sorted(["../00.png", "../02.png", str(absolute)])
    assert found.reader.read(0) == (below / found.names[0]).read_bytes()


def test_multi_labels(pictures):
    found = scanned(pictures, "path,labels\n00.png,b|a\n01.png,\n02.png,a; c\n")
    assert found.multi_label and found.classes == ("a", "b", "c")
    expected = [[True, True, False], [False] * 3, [True, False, True]]
    assert found.numbers(("a", "b", "c")).tolist() == expected
    assert scanned(pictures, "path,label\n00.png,a|b\n01.png,a\n").multi_label


def test_a_data_set_with_multi_labels(pictures):
    rows = "".join(f"{i:02}.png,{'cat|indoors' if i % 2 else 'dog'}\n" for i in range(12))
    data = open_dataset(table(pictures, "path,labels\n" + rows))
    assert data.multi_label and data.classes == ("cat", "dog", "indoors")
    assert data.train.labels.dtype == bool and data.train.labels.shape == (10, 3)
    assert data.val.labels.any(axis=0).all(), "every class is held out too"
    split = open_for_scoring(pictures / "list.csv", ["x", "indoors", "dog", "cat"]).split
    assert split.labels.shape == (12, 4) and not split.labels[:, 0].any()


def test_labels_that_are_written_in_two_unicode_forms_are_one(pictures):
    found = scanned(pictures, "path,label\n00.png,\u00e9\n01.png,e\u0301\n")
    assert found.classes == ("\u00e9",)


@pytest.mark.parametrize(
    ("rows", "code", "path", "reason"),
    [
        (",\n", "empty-row", "list.csv", "Line 3 of list.csv has no path"),
        ("\n04.png,a\n", "empty-row", "list.csv", "Line 3 of list.csv has no path"),
        ("04.png,\n", "empty-row", "04.png", "Line 3 of list.csv has no label"),
        ("04.png\n", "empty-row", "04.png", "Line 3 of list.csv has no label"),
        ("99.png,a\n", "missing", "99.png", "Line 3 of list.csv names no file."),
        ("04.PNG,a\n", "missing", "04.PNG", "names no file, but 04.png is there"),
        (".,a\n", "missing", ".", "names no file"),
        ("04.png,a\n04.png,b\n", "two-labels", "04.png", "Lines 3, 4 .* a and b"),
        ("04.png,a\n./04.png,b\n", "two-labels", "04.png", "Lines 3, 4"),
        (f"{'x' * 300}.png,a\n", "missing", f"{'x' * 300}.png", "names no file."),
        ("04.png,A\n", "case", "list.csv", "'A' 1 times, 'a' 1 times"),
        ("04.png,a\n04.png,a\n", "repeated", "04.png", "Lines 3, 4 .* read once"),
    ],
)
def test_rows_that_cannot_be_are_named(pictures, rows, code, path, reason):
    found = scanned(pictures, "path,label\n00.png,a\n" + rows)
    (problem,) = found.problems
    assert (problem.code, problem.path) == (code, path)
    with pytest.raises(DataError, match=reason):
        raise DataError(problem.reason)


def test_a_file_named_once_from_the_root_has_its_label_all_the_same(pictures):
    for label, code in (("b", "two-labels"), ("a", "repeated")):
        rows = f"path,label\n00.png,a\n04.png,a\n{(pictures / '04.png').absolute()},{label}\n"
        (problem,) = scanned(pictures, rows).problems
        assert (problem.code, problem.path) == (code, "04.png")


def test_a_training_stops_for_all_of_them_at_once(pictures):
    rows = ("00.png,a", "01.png,b", "02.png,", "77.png,a", "78.png,a", "04.png,B", "05.png,a")
    text = "\n".join(("path,label", *rows, "05.png,b"))
    with pytest.raises(DataError) as caught:
        open_dataset(table(pictures, text))
    for part in (
        "have no label: 1 (02.png",
        "name no file: 2 (77.png",
        "two labels: 1 (05.png",
        "letter case alone: 1 (list.csv: .*'B' 1 times, 'b' 2 times",
    ):
        with pytest.raises(DataError, match=part.replace("(", r"\(")):
            raise caught.value


def test_missing_files_and_empty_rows_are_passed_over_where_that_is_allowed(pictures):
    text = "path,label\n" + "".join(f"{n},{label}\n" for n, label in ROWS) + "77.png,cat\n,\n"
    path = table(pictures, text)
    with pytest.raises(DataError, match="allow_unreadable=true"):
        open_dataset(path)
    data = open_dataset(path, allow_unreadable=True)
    assert len(data.train) + len(data.val) == 12 and len(data.problems) == 2


def test_an_unreadable_file_is_left_out(pictures):
    (pictures / "00.png").write_bytes(b"<html>")
    found = scanned(pictures, "path,label\n00.png,a\n01.png,b\n")
    assert found.names == ["01.png"] and found.empty_classes == ["a"]
    assert [problem.code for problem in found.problems] == ["unreadable"]


def test_train_and_val_lists_in_a_folder(pictures):
    rows = [f"{name},{label}\n" for name, label in ROWS]
    table(pictures, "path,label\n" + "".join(rows[:8]), "train.csv")
    table(pictures, "path,label\n" + "".join(rows[8:]), "val.csv")
    data = open_dataset(pictures)
    assert (len(data.train), len(data.val)) == (8, 4) and data.classes == ("cat", "dog")
    assert (
        data.val.key(0) == "08.png" and len(open_for_scoring(pictures, ["dog", "cat"]).split) == 4
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names the columns"),
        ("00.png,3,7\n01.png,3,8\n", "has 3 columns and no names for them"),
        ("path,colour,size\n00.png,a,b\n", "names the columns, .* which is the label.*'colour'"),
        ("path,label\n", "No images"),
        ('path,label\n"' + "x" * 200_000 + "\n", "line .* is no CSV: field larger"),
    ],
)
def test_what_is_no_table(pictures, text, sentence):
    with pytest.raises(DataError, match=sentence):
        open_dataset(table(pictures, text))


def test_another_encoding_is_named(pictures):
    with pytest.raises(DataError, match="not UTF-8"):
        open_dataset(table(pictures, "path,label\n00.png,고양이\n", encoding="cp949"))


def test_several_labels_in_one_of_two_lists_are_several_in_both(pictures):
    """Or every image of the first epoch would be learnt before the first validation refuses."""
    train = "path,label\n" + "\n".join(
        f"{i:02}.png,{'a|b' if i < 2 else 'ab'[i % 2]}" for i in range(8)
    )
    val = "path,label\n" + "\n".join(f"{i:02}.png,{'ab'[i % 2]}" for i in range(8, 12))
    for first, second in ((train, val), (val, train)):
        table(pictures, first, "train.csv")
        table(pictures, second, "val.csv")
        data = open_dataset(pictures)
        assert data.multi_label and data.val.labels.dtype == bool
        assert data.val.labels.shape[1] == len(data.classes) == 2


def test_held_out_images_without_any_label_are_refused(pictures):
    rows = "00.png,a,train\n01.png,b|a,train\n02.png,,val\n03.png,,val\n"
    path = table(pictures, f"path,labels,split\n{rows}")
    with pytest.raises(DataError, match="None of the 2 held-out images"):
        open_dataset(path)
