"""Files of class names: every usual form says the same; what could mean two things is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from vitral.catalog.checkpoints import labels
from vitral.data import class_names
from vitral.data.check import check
from vitral.data.class_names import for_folders, for_logits, order_of, read
from vitral.data.datasets import open_dataset, open_for_scoring
from vitral.errors import DataError


def written(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "cat\ndog\n부엉이\n"),
        ("classes.txt", "\ufeffcat\r\ndog\r\n부엉이\r\n\r\n"),
        ("classes.txt", "0 cat\n1 dog\n2 부엉이"),
        ("classes.txt", "1: dog\n0: cat\n2: 부엉이"),
        ("c.json", ["cat", "dog", "부엉이"]),
        ("c.json", {"0": "cat", "2": "부엉이", "1": "dog"}),
        ("c.json", {"cat": 0, "dog": 1, "부엉이": 2}),
        (
            "config.json",
            {"architectures": ["x"], "id2label": {"0": "cat", "1": "dog", "2": "부엉이"}},
        ),
        ("c.json", {"0": ["n1", "cat"], "1": ["n2", "dog"], "2": ["n3", "부엉이"]}),
        ("coco.json", {"categories": [{"id": i, "name": n} for i, n in enumerate("abc")]}),
        ("c.csv", "id,name\n0,cat\n1,dog\n2,부엉이\n"),
        ("c.csv", "name;id\ncat;0\ndog;1\n부엉이;2\n"),
        ("c.tsv", "0\tcat\n1\tdog\n2\t부엉이\n"),
        ("c.csv", "name\ncat\ndog\n부엉이\n"),
    ],
)
def test_every_usual_form_names_the_logits(tmp_path, name, content):
    names = read(written(tmp_path, name, content))
    expected = ("a", "b", "c") if name == "coco.json" else ("cat", "dog", "부엉이")
    assert for_logits(names, 3) == expected
    assert order_of(names) == ""


def test_keys_that_do_not_count_from_zero_are_folders(tmp_path):
    flowers = {str(i): f"flower {i}" for i in range(1, 103)}
    names = read(written(tmp_path, "cat_to_name.json", flowers))
    ordered = for_logits(names, 102)
    assert ordered[:3] == ("flower 1", "flower 10", "flower 100")
    assert "logit 0: '1' (flower 1), 1: '10' (flower 10)" in order_of(names)
    assert for_folders(names, ["1", "10", "077"]) == {
        "1": "flower 1",
        "10": "flower 10",
        "077": "flower 77",
    }


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("c.txt", "cat\n\ndog\n", "line 2 is empty"),
        ("c.txt", "", "names no class"),
        ("c.txt", "cat\ndog\ncat\n", r"the class 'cat' 2 times \(numbers 1, 3\)"),
        ("c.json", '{"a": 1,', "line 1 is no JSON"),
        ("c.json", {"a": [1, 2]}, "no list of class names"),
        ("c.json", "7", "no list of class names"),
        ("c.json", [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "the key '1' 2 times"),
        ("c.json", ["a", " "], "an empty name, number 2"),
        ("c.csv", "a,b,c\n1,2,3\n", "names two columns, id and name"),
        ("c.csv", "id,name\n0,cat\n1\n", "row 2 has 1 cells"),
    ],
)
def test_bad_files_are_answered(tmp_path, name, content, sentence):
    with pytest.raises(DataError, match=sentence):
        read(written(tmp_path, name, content))


def test_other_bad_files(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "no.txt")
    (tmp_path / "latin.txt").write_bytes("Käfer\nBär\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read(tmp_path / "latin.txt")
    names = read(written(tmp_path, "two.txt", "cat\ndog\n"))
    with pytest.raises(DataError, match="names 2 classes, and the model has 3"):
        for_logits(names, 3)


def test_a_list_whose_start_is_unclear_is_refused(tmp_path):
    names = read(written(tmp_path, "ten.txt", "\n".join(f"class {c}" for c in "abcdefghij")))
    assert for_folders(names, ["0", "3"])["3"] == "class d"
    assert for_folders(names, ["01", "10"])["10"] == "class j"
    with pytest.raises(DataError, match="do they count from 0 or from 1"):
        for_folders(names, ["1", "2"])
    with pytest.raises(DataError, match="not by numbers"):
        for_folders(names, ["cats"])
    keyed = read(written(tmp_path, "k.json", {"5": "cat"}))
    with pytest.raises(DataError, match="has no name for 6; it knows 5"):
        for_folders(keyed, ["5", "6"])


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for split, count in (("train", 3), ("val", 1)):
        for number in range(1, 4):
            folder = root / split / str(number)
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (8, 8), (40 * number, 30 * index, 0)).save(folder / f"{index}.png")
    return root


NAMES = {"1": "daisy", "2": "rose", "3": "tulip"}


@pytest.mark.parametrize(
    ("place", "name", "content"),
    [
        ("data", "cat_to_name.json", NAMES),
        ("", "cat_to_name.json", NAMES),
        ("data", "classes.txt", "daisy\nrose\ntulip\n"),
        ("data", "labels.txt", "1 daisy\n2 rose\n3 tulip\n"),
    ],
)
def test_a_file_beside_numbered_folders_names_them(numbered, tmp_path, place, name, content):
    file = written(tmp_path / place, name, content)
    data = open_dataset(numbered)
    assert data.classes == ("daisy", "rose", "tulip")
    assert any(str(file) in decision.sentence for decision in data.decisions)
    assert check(numbered).classes == {"daisy": 4, "rose": 4, "tulip": 4}
    images = open_for_scoring(numbered, ("tulip", "rose", "daisy"))
    assert images.split.labels.tolist() == [2, 1, 0]


def test_a_list_above_the_folders_needs_keys_and_folders_with_names_need_none(numbered, tmp_path):
    written(tmp_path, "classes.txt", "daisy\nrose\ntulip\n")
    assert open_dataset(numbered).classes == ("1", "2", "3")
    written(numbered, "classes.txt", "one\ntwo\n")  # of something else
    assert open_dataset(numbered).classes == ("1", "2", "3")


def test_a_file_that_is_given(numbered, tmp_path):
    file = written(tmp_path, "my names.json", NAMES)
    data = open_dataset(numbered, class_file=str(file))
    assert data.classes == ("daisy", "rose", "tulip")
    with pytest.raises(DataError, match="has no name for 3"):
        open_dataset(numbered, class_file=str(written(tmp_path, "two.json", {"1": "a", "2": "b"})))


def test_imagenets_folders_are_matched(tmp_path):
    for name in ("n01440764", "n02102040"):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / "val" / name / "0.JPEG", "JPEG")
    words = labels("imagenet-1k")
    images = open_for_scoring(tmp_path, words)
    assert [words[label] for label in images.split.labels] == ["tench", "English springer"]
    assert "matched by WordNet id" in images.decisions[-1].sentence
    (tmp_path / "val" / "n99999999").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "val" / "n99999999" / "0.png")
    with pytest.raises(DataError, match="n99999999"):
        open_for_scoring(tmp_path, words)


def test_a_coin_is_no_key(tmp_path):
    coins = "1 cent\n2 cent\n5 cent\n1 euro\n"
    assert class_names.read(written(tmp_path, "coins.txt", coins)).keys == ()


def test_a_table_that_is_no_csv_is_answered_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("id,name\n0,cat\n1," + "x" * 200_000 + "\n")
    with pytest.raises(DataError, match=r"names\.csv line 3 is no CSV"):
        read(path)
