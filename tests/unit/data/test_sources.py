"""Splits and the readers behind them."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from vitral.data.builtin import Scenes
from vitral.data.sources import Arrays, Files, Problem, ScanResult, Split
from vitral.errors import DataError, TruncatedError


def split() -> Split:
    images = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2, 1).repeat(3, axis=3)
    reader = Arrays(images, tuple(f"made/{row}" for row in range(5)))
    return Split("train", np.array([0, 1, 0]), np.array([4, 2, 0]), reader)


def test_rows_lead_to_samples_and_their_names():
    made = split()
    assert len(made) == 3 and made.key(0) == "made/4" and made.read(1)[0, 0, 0] == 8


def test_select_and_relabel():
    chosen = split().select([2, 0])
    assert [chosen.key(index) for index in range(2)] == ["made/0", "made/4"]
    assert chosen.labels.tolist() == [0, 0]
    assert replace(chosen, labels=np.array([7, 8])).labels.tolist() == [7, 8]


def test_an_order_is_a_permutation_that_the_seed_decides():
    whole = replace(split(), labels=np.zeros(50), rows=np.arange(50))
    assert sorted(whole.order(1)) == list(range(50))
    assert whole.order(1) == whole.order(1) != whole.order(2)


def test_shards_are_read_eight_at_a_time():
    shards = np.repeat(np.arange(40), 25)
    whole = replace(split(), labels=np.zeros(1000), rows=np.arange(1000), shards=shards)
    order = whole.order(5)
    assert sorted(order) == list(range(1000)) and order == whole.order(5) != whole.order(6)
    for start in range(0, 1000, 200):
        window = shards[order[start : start + 200]]
        assert len(np.unique(window)) == 8 and (np.diff(window) != 0).mean() > 0.7
    group_ids = {seed: set(shards[whole.order(seed)[:200]].tolist()) for seed in range(3)}
    assert group_ids[0] != group_ids[1] != group_ids[2], "other shards meet in another epoch"
    some = whole.select(range(30, 80))
    assert some.shards is not None and len(some.order(0)) == 50


def test_labels_become_numbers_by_name():
    found = ScanResult(Files("", ("1", "2")), ["1", "2"], [("b",), ("a",)])
    assert found.classes == ("a", "b") and found.numbers(("x", "b", "a")).tolist() == [1, 2]
    made = found.split("val", found.classes, [1])
    assert made.labels.tolist() == [0] and made.key(0) == "2"
    multi_label = ScanResult(Files("", ("1",)), ["1"], [("b", "a")], multi_label=True)
    assert multi_label.numbers(("a", "b", "c")).tolist() == [[True, True, False]]


def test_left_out_tells_a_cut_off_file_from_others():
    errors = (TruncatedError("It ends early."), DataError("It is called truncated.jpg."))
    codes = [Problem.left_out("a", error).code for error in errors]
    assert codes == ["truncated", "unreadable"]


def test_files_are_read_and_a_missing_one_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"data")
    reader = Files(str(tmp_path), ("a/1.jpg", "a/2.jpg"))
    assert reader.read(0) == b"data" and reader.key(1) == "a/2.jpg"
    with pytest.raises(DataError, match="No such file"):
        reader.read(1)


def test_scenes_are_drawn_on_demand():
    reader = Scenes(seed=0, size=16)
    assert reader.read(3).shape == (16, 16, 3) and reader.key(3) == "shapes/3"
    later = replace(reader, first=2)
    assert later.key(1) == reader.key(3) and np.array_equal(later.read(1), reader.read(3))


@pytest.mark.parametrize("value", [split(), Scenes(0, 8), Problem("a.jpg", "The file is empty.")])
def test_everything_travels_to_a_worker(value):
    again = pickle.loads(pickle.dumps(value))
    assert type(again) is type(value) and repr(again) == repr(value)
