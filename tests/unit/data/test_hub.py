"""Parquet and arrow files, and what the library of Hugging Face says when it is not there."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitral.data import hub
from vitral.data.datasets import open_dataset, open_for_scoring
from vitral.errors import DataError, MachineError

datasets = pytest.importorskip("datasets", reason="the extra 'data' is not installed")
# its fork of multiprocessing and pandas speak of things to come
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def png(index: int) -> bytes:
    buffer, dice = io.BytesIO(), np.random.default_rng(index)
    noise = dice.integers(0, 256, (10, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def rows(count: int, label) -> list[dict]:
    return [
        {"image": {"bytes": png(index), "path": f"{index}.png"}, "label": label(index)}
        for index in range(count)
    ]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    place = str(tmp_path_factory.mktemp("hf"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", place)


def test_a_parquet_file_of_structs(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(rows(10, lambda index: ["dog", "cat"][index % 2]))
    path = tmp_path / "plain.parquet"
    pyarrow.parquet.write_table(table, path)
    for source in (path, tmp_path):
        data = open_dataset(source)
        assert data.classes == ("cat", "dog") and len(data.train) == 8
        assert data.train.read(0) == png(int(data.train.key(0).removeprefix("train/")))


def named(count: int, names: list[str]):
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    return datasets.Dataset.from_list(rows(count, lambda index: index % 2), features=features)


def test_class_numbers_are_matched_by_name(tmp_path):
    (tmp_path / "p").mkdir()
    named(10, ["dog", "cat"]).to_parquet(tmp_path / "p" / "train-00000-of-00001.parquet")
    named(4, ["dog", "cat"]).to_parquet(tmp_path / "p" / "test-00000-of-00001.parquet")
    data = open_dataset(tmp_path / "p")
    assert data.classes == ("cat", "dog") and data.train.labels.tolist()[:3] == [1, 0, 1]
    assert (len(data.train), len(data.val), data.val.name) == (10, 4, "test")
    assert open_for_scoring(tmp_path / "p", ["dog", "x", "cat"]).split.labels.tolist() == [
        0,
        2,
        0,
        2,
    ]
    with pytest.raises(DataError, match="does not know"):
        open_for_scoring(tmp_path / "p", ["dog", "x"])


def test_saved_data_sets_and_multi_labels(tmp_path):
    features = datasets.Features(
        {"image": datasets.Image(), "tags": datasets.List(datasets.Value("string"))}
    )
    made = [
        {"image": row["image"], "tags": [["a"], ["a", "b"], []][index % 3]}
        for index, row in enumerate(rows(12, int))
    ]
    whole = datasets.Dataset.from_list(made, features=features)
    whole.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": whole, "validation": whole}).save_to_disk(str(tmp_path / "two"))
    one, two = open_dataset(tmp_path / "one"), open_dataset(tmp_path / "two")
    assert one.multi_label and one.classes == ("a", "b") and len(one.train) + len(one.val) == 12
    assert len(two.train) == len(two.val) == 12
    assert two.train.labels[:3].tolist() == [[True, False], [True, True], [False, False]]


def test_rows_that_cannot_be_used_are_named(tmp_path):
    made = rows(8, lambda index: ["dog", "cat"][index % 2])
    made[1]["image"] = {"bytes": b"<html>", "path": None}
    made[2]["image"] = {"bytes": None, "path": str(tmp_path / "gone.png")}
    made[3]["label"] = None
    datasets.Dataset.from_list(made).save_to_disk(str(tmp_path / "d"))
    data = open_dataset(tmp_path / "d", allow_unreadable=True)
    reasons = {problem.path: problem.reason for problem in data.problems}
    assert list(reasons) == ["train/1", "train/2", "train/3"]
    for path, reason in (("1", "web page"), ("2", "cannot be read"), ("3", "no label")):
        assert reason in reasons[f"train/{path}"]
    keys = [split.key(i) for split in (data.train, data.val) for i in range(len(split))]
    assert sorted(keys) == [f"train/{row}" for row in (0, 4, 5, 6, 7)]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"label": ["a"]}, "no column of images, only label"),
        ({"image": [{"bytes": b"x", "path": ""}], "colour": ["red"]}, "no column of labels"),
    ],
)
def test_columns_that_are_missing(tmp_path, columns, sentence):
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(DataError, match=sentence):
        open_dataset(tmp_path / "d")


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be opened as a data set"):
        open_dataset(tmp_path / "bad.parquet")


def test_the_library_is_optional(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MachineError, match=r"pip install 'vitral\[data\]'"):
        open_dataset("hf:some/name")


def test_what_is_a_table(tmp_path):
    assert not hub.is_table(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-0.parquet").write_bytes(b"")
    assert hub.is_table(tmp_path) and hub.is_table(Path(tmp_path, "data"))
    assert not hub.is_table(tmp_path / "nowhere")


def test_a_column_says_the_split(tmp_path):
    made = rows(12, lambda index: ["dog", "cat"][index % 2])
    for index, row in enumerate(made):
        row["split"] = ["train", "train", "validation", "test"][index % 4]
    datasets.Dataset.from_list(made).to_parquet(tmp_path / "all.parquet")
    data = open_dataset(tmp_path / "all.parquet")
    assert (len(data.train), len(data.val)) == (6, 3)
    assert data.val.read(1) == png(6), "the rows of validation are 2, 6 and 10"
    assert any("split in its column 'split'" in one.sentence for one in data.decisions)


def test_columns_are_called_as_in_other_tables(tmp_path):
    made = [
        {"image": row["image"], "Class_ID": row["label"]} for row in rows(8, lambda i: "ab"[i % 2])
    ]
    datasets.Dataset.from_list(made).to_parquet(tmp_path / "all.parquet")
    assert open_dataset(tmp_path / "all.parquet").classes == ("a", "b")
    datasets.Dataset.from_dict({"file_name": ["a.png"], "label": ["x"]}).to_parquet(
        tmp_path / "paths.parquet"
    )
    with pytest.raises(DataError, match=r"no column of images.*read from a CSV file"):
        open_dataset(tmp_path / "paths.parquet")
