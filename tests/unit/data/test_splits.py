"""What is held out: the same share of every class, the same for everyone, copies on one side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vitral.data import splits
from vitral.data.sources import Files, ScanResult
from vitral.data.splits import duplicate_groups, stratified


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=80),
    st.floats(0.05, 0.9),
    st.integers(0, 5),
)
def test_laws(samples, fraction, seed):
    labels = np.array([label for label, _ in samples])
    group_ids = np.array([100 * label + group for label, group in samples])
    keys = [f"k{row}" for row in range(len(samples))]
    train, val = stratified(keys, labels, seed, fraction, group_ids)
    assert sorted([*train, *val]) == list(range(len(samples))), "each on one side"
    for group in set(group_ids[train]) & set(group_ids[val]):
        assert len(set(group_ids[labels == group // 100])) == 1, "a class of one picture alone"
    order = np.random.default_rng(seed).permutation(len(samples))
    again = stratified(
        [keys[row] for row in order], labels[order], seed, fraction, group_ids[order]
    )
    assert {keys[order[row]] for row in again[1]} == {keys[row] for row in val}, "order is nothing"


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_the_share_is_that_of_every_class(fraction):
    labels = np.repeat(np.arange(3), [1000, 100, 10])
    _, val = stratified([str(row) for row in range(1110)], labels, 0, fraction)
    assert np.bincount(labels[val]).tolist() == [round(n * fraction) for n in (1000, 100, 10)]


def test_groups_stay_together_and_the_share_is_kept():
    labels = np.repeat([0, 1], 300)
    group_ids = np.arange(600) // 3 * 3
    train, val = stratified([str(row) for row in range(600)], labels, 0, 0.2, group_ids)
    assert not set(group_ids[train]) & set(group_ids[val])
    assert np.bincount(labels[val]).tolist() == [60, 60]


def test_a_class_of_copies_of_one_picture_is_divided_all_the_same():
    train, val = stratified(
        [str(row) for row in range(10)], np.zeros(10, int), 0, 0.2, np.zeros(10)
    )
    assert (len(train), len(val)) == (8, 2)


def test_a_single_picture_is_for_training():
    assert [side.tolist() for side in stratified(["a"], np.zeros(1, int), 0, 0.5)] == [[0], []]


def test_adding_files_moves_few_others():
    keys = [f"cat/{row}" for row in range(500)]
    _, before = stratified(keys, np.zeros(500, int), 0, 0.2)
    more = [*keys, *(f"cat/new{row}" for row in range(20))]
    _, after = stratified(more, np.zeros(520, int), 0, 0.2)
    assert len(set(before) & set(after)) >= 90


def test_with_multi_labels_the_rarest_decides():
    dice = np.random.default_rng(0)
    labels = dice.random((1000, 4)) < [0.9, 0.5, 0.1, 0.02]
    _, val = stratified([str(row) for row in range(1000)], labels, 0, 0.25)
    share = labels[val].sum(axis=0) / labels.sum(axis=0)
    assert abs(share - 0.25).max() < 0.06 and abs(len(val) - 250) < 5


@pytest.fixture
def found(tmp_path) -> ScanResult:
    dice, names = np.random.default_rng(0), []
    for index in range(6):
        noise = dice.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((60, 60)).save(tmp_path / f"{index}.png")
        names.append(f"{index}.png")
    Image.open(tmp_path / "2.png").save(tmp_path / "copy.jpg", quality=60)
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    names += ["copy.jpg", "bad.jpg"]
    numbers = [0] * len(names)
    return ScanResult(
        Files(str(tmp_path), tuple(names)),
        names,
        sizes=numbers,
        stamps=numbers,
        headers=[None] * len(names),
    )


def test_copies_and_what_cannot_be_decoded(found):
    known = duplicate_groups(found, "here")
    assert known.group_ids.tolist() == [0, 1, 2, 3, 4, 5, 2, 7]
    assert list(known.failed) == [7] and known.failed[7].path == "bad.jpg"


def test_what_was_found_out_is_remembered(found, tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(splits, "_WORTH_KEEPING", 1)
    first = duplicate_groups(found, "here")
    monkeypatch.setattr(splits.near_duplicates, "thumbnails_of", None)  # a second look would fail
    again = duplicate_groups(found, "here")
    assert again.group_ids.tolist() == first.group_ids.tolist() and again.failed == first.failed
    for change in ({"where": "there"}, {"stamp": 1}):
        found.stamps[0] = change.get("stamp", 0)
        with pytest.raises(TypeError):
            duplicate_groups(found, change.get("where", "here"))
