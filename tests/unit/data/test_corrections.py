"""Corrections of labels: they change what is read and no file; rows that are wrong are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn import hashes
from vitral.data import corrections, label_studio
from vitral.data.check import check
from vitral.data.datasets import open_dataset, open_for_scoring
from vitral.data.sources import Division
from vitral.errors import DataError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    dice = np.random.default_rng(0)
    root = tmp_path / "photos"
    for name in ("cat", 'dog "x"', "부엉이"):
        (root / name).mkdir(parents=True)
        for index in range(5):
            values = dice.integers(0, 255, (12, 12, 3), np.uint8)
            Image.fromarray(values).save(root / name / f"{index}.png")
    return root


def table(folder: Path, *rows: str, header: str = "path,label") -> str:
    path = folder / "relabel.csv"
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return str(path)


def labels_of(data) -> dict[str, str]:
    return {
        split.key(i): data.classes[split.labels[i]]
        for split in (data.train, data.val)
        for i in range(len(split))
    }


def test_labels_are_corrected_and_no_file_is_touched(photos, tmp_path):
    before = hashes(photos)
    file = table(
        tmp_path,
        'cat/0.png,"dog ""x"""',
        f"{photos}/cat/1.png,부엉이",
        "cat/2.png,",
        "부엉이/4.png,remove",
    )
    plain = labels_of(open_dataset(photos))
    data = open_dataset(photos, label_file=file)
    expected = plain | {"cat/0.png": 'dog "x"', "cat/1.png": "부엉이"}
    del expected["부엉이/4.png"]
    assert labels_of(data) == expected
    sentence = "says what 2 pictures are, leaves 1 out and adds 0"
    assert any(sentence in decision.sentence for decision in data.decisions)
    assert data.fingerprint != open_dataset(photos).fingerprint
    assert data.fingerprint == open_dataset(photos, label_file=file).fingerprint
    assert check(photos, label_file=file).classes == {"cat": 3, 'dog "x"': 6, "부엉이": 5}
    assert hashes(photos) == before


@pytest.mark.parametrize(
    ("rows", "header", "sentence"),
    [
        (("cat/9.png,cat",), "path,label", r"line 2 names cat/9.png, .*did you mean cat/\d.png"),
        (("cat/0.png,katze",), "path,label", "line 2: there is no class 'katze'"),
        (("cat/0.png,ca",), "path,label", "did you mean 'cat'"),
        (("cat/0.png,cat", "./cat/0.png,부엉이"), "path,label", "line 2 and line 3 both say"),
        (("cat/0.png",), "path,label", "line 2 needs a path and a label"),
        (("cat/0.png,cat",), "path,class", "names the columns path and label, not 'path,class'"),
        (("cat/0.png,cat|부엉이",), "path,label", "an image of this data has one label"),
    ],
)
def test_bad_rows_are_answered(photos, tmp_path, rows, header, sentence):
    with pytest.raises(DataError, match=sentence):
        open_dataset(photos, label_file=table(tmp_path, *rows, header=header))


def test_bad_files_are_answered(photos, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(photos, label_file=str(tmp_path / "no.csv"))
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(DataError, match="is empty"):
        corrections.read(empty)
    empty.write_bytes("path,label\nKäfer.png,cat\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        corrections.read(empty)


def test_pictures_from_elsewhere_join_the_training_images(photos, tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    for index in range(3):
        Image.new("RGB", (9, 9), (index, 5, 200)).save(pool / f"{index}.png")
    file = table(tmp_path, f"{pool}/0.png,cat", "pool/1.png,부엉이", f"{pool}/2.png,remove")
    with pytest.raises(DataError, match=r"pool/2.png, which is no picture"):
        open_dataset(photos, label_file=file)
    file = table(tmp_path, f"{pool}/0.png,cat", "pool/1.png,부엉이", f"{pool}/2.png,")
    data = open_dataset(photos, label_file=file)
    labels = labels_of(data)
    assert labels[f"{pool}/0.png"] == "cat"
    assert labels[f"{pool}/1.png"] == "부엉이"
    assert len(labels) == 17
    for split in (data.train, data.val):
        for index in range(len(split)):
            assert isinstance(split.read(index), bytes)


def test_what_a_training_held_out_is_corrected_for_scoring(photos, tmp_path):
    data = open_dataset(photos)
    division = Division(source=str(photos), fingerprint=data.fingerprint)
    first, second = data.val.key(0), data.val.key(1)
    others = [name for name in data.classes if name != data.classes[data.val.labels[0]]]
    quoted = others[0].replace('"', '""')
    file = table(tmp_path, f'{first},"{quoted}"', f"{second},remove")
    wrong = table(tmp_path, "cat/nine.png,cat")
    with pytest.raises(DataError, match=r"names cat/nine.png, which is no picture"):
        open_for_scoring(photos, data.classes, division=division, label_file=wrong)
    file = table(tmp_path, f'{first},"{quoted}"', f"{second},remove", f"{data.train.key(0)},cat")
    images = open_for_scoring(photos, data.classes, division=division, label_file=file)
    assert images.held_out_by_training
    assert file in images.decisions[0].sentence
    assert len(images.split) == len(data.val) - 1
    assert data.classes[images.split.labels[0]] == others[0]


def test_rows_of_the_training_part_do_not_keep_the_held_out_one_from_being_scored(photos, tmp_path):
    root = tmp_path / "split"
    for part in ("train", "val"):
        for folder in photos.iterdir():
            (root / part / folder.name).mkdir(parents=True)
            for file in folder.iterdir():
                (root / part / folder.name / file.name).write_bytes(file.read_bytes())
    file = table(tmp_path, "train/cat/0.png,부엉이", "val/cat/1.png,부엉이")
    images = open_for_scoring(root, ("cat", 'dog "x"', "부엉이"), label_file=file)
    assert np.bincount(images.split.labels).tolist() == [4, 5, 6]
    with pytest.raises(DataError, match="which is no picture"):
        open_for_scoring(root, ("cat",), label_file=table(tmp_path, "train/cat/77.png,cat"))


def test_label_studio_brings_them_back(photos, tmp_path):
    tasks = [
        label_studio.task("cat/0.png", f"{photos}/cat/0.png", ["부엉이"], 0.9),
        label_studio.task("cat/1.png", f"{photos}/cat/1.png", [], None),
    ]
    assert "predictions" not in tasks[1]
    choices = tasks[0]["predictions"][0]["result"]
    assert choices[0]["value"]["choices"] == ["부엉이"]
    export = [
        tasks[0] | {"id": 7, "annotations": [{"result": choices}, {"was_cancelled": True}]},
        tasks[1] | {"id": 8, "annotations": []},
        {"id": 9, "data": {"image": "/data/local-files/?d=cat%2F2.png"}, "annotations": []},
    ]
    file = tmp_path / "export.json"
    file.write_text(json.dumps(export), encoding="utf-8")
    assert labels_of(open_dataset(photos, label_file=str(file)))["cat/0.png"] == "부엉이"
    assert [row[1] for row in label_studio.read(file)] == ["cat/0.png", "cat/1.png", "cat/2.png"]
    least = [{"id": 1, "image": "/x", "path": "cat/3.png", "label": "부엉이"}]
    file.write_text(json.dumps(least), encoding="utf-8")
    assert labels_of(open_dataset(photos, label_file=str(file)))["cat/3.png"] == "부엉이"
    for content, sentence in (("{}", "no export"), ("[", "cannot be read"), ("[{}]", "names no p")):
        file.write_text(content)
        with pytest.raises(DataError, match=sentence):
            corrections.read(file)


def test_the_labelling_configuration_quotes_names():
    text = label_studio.configuration(['dog "x"', "<b>"], several=False)
    assert "<Choice value='dog \"x\"'/>" in text
    assert '<Choice value="&lt;b&gt;"/>' in text
