"""What the user names becomes labelled images; what is wrong with it becomes one sentence."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn import draw_folder, spoil
from vitral.data.datasets import EvalSet, common, find_images, open_dataset, open_for_scoring
from vitral.errors import DataError, UsageError


def folder(root: Path, counts: dict[str, int]) -> Path:
    """Class folders (or split/class folders) with so many images, no two alike."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        dice = np.random.default_rng(list(name.encode()))
        for index in range(count):
            noise = dice.integers(0, 256, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / name / f"{index:03}.png")
    return root


def labelled(source, classes, **settings):
    return open_for_scoring(source, classes, **settings).split


def known(source, classes):
    found = open_for_scoring(source, classes, allow_unknown=True)
    return found.split, dict(found.unknown)


def hashes(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ------------------------------------------------------------------ what is found


def test_a_folder_without_a_split_is_divided_by_class_and_seed(tmp_path):
    folder(tmp_path, {"cat": 50, "dog": 20, "emu": 2, "one": 1})
    before = hashes(tmp_path)
    data = open_dataset(tmp_path)
    assert data.classes == ("cat", "dog", "emu", "one")
    assert np.bincount(data.train.labels).tolist() == [40, 16, 1, 1]
    assert np.bincount(data.val.labels).tolist() == [10, 4, 1]
    assert data.train.labels.dtype == np.int64
    train = {data.train.key(index) for index in range(len(data.train))}
    val = {data.val.key(index) for index in range(len(data.val))}
    assert not train & val and len(train | val) == 73
    assert data.classes[data.val.labels[0]] == data.val.key(0).split("/")[0]
    assert data.train.read(0).startswith(b"\x89PNG")
    assert [(problem.path, problem.code) for problem in data.problems] == [("one", "small")]
    again, other = open_dataset(tmp_path), open_dataset(tmp_path, seed=1)
    assert again.fingerprint == data.fingerprint != other.fingerprint
    assert {other.val.key(index) for index in range(len(other.val))} != val
    assert hashes(tmp_path) == before


def test_the_fingerprint_tells_names_sizes_and_labels(tmp_path):
    folder(tmp_path, {"a": 5, "b": 5})
    first = open_dataset(tmp_path).fingerprint
    Image.new("RGB", (50, 50)).save(tmp_path / "a" / "000.png")
    second = open_dataset(tmp_path).fingerprint
    (tmp_path / "a" / "000.png").rename(tmp_path / "b" / "moved.png")
    assert len({first, second, open_dataset(tmp_path).fingerprint}) == 3


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test", "Val"])
def test_a_split_of_the_users_own_is_kept(tmp_path, held_out):
    folder(tmp_path, {"train/a": 4, "train/b": 3, f"{held_out}/a": 2, f"{held_out}/b": 1})
    data = open_dataset(tmp_path)
    assert len(data.train) == 7 and len(data.val) == 3 and not data.problems
    assert data.val.key(0) == f"{held_out}/a/000.png"


def test_train_alone_is_divided(tmp_path):
    folder(tmp_path, {"train/a": 10, "train/b": 10})
    data = open_dataset(tmp_path, val_fraction=0.3)
    assert (len(data.train), len(data.val)) == (14, 6)


def test_a_class_missing_from_val_is_a_remark(tmp_path):
    folder(tmp_path, {"train/a": 4, "train/b": 3, "val/a": 2})
    (problem,) = open_dataset(tmp_path).problems
    assert problem.path == "val/b" and problem.code == "unmatched"


def test_digits():
    data = open_dataset("digits")
    assert data.classes == tuple("0123456789") and len(data.train) + len(data.val) == 1797
    assert abs(len(data.val) - 360) < 5 and set(np.bincount(data.val.labels)) <= {35, 36, 37}
    image = data.train.read(0)
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8
    brightest = max(data.train.read(index).max() for index in range(50))
    assert brightest == 255 and data.train.key(0).startswith("digits/")
    assert np.array_equal(open_dataset("digits").val.rows, data.val.rows)


def test_shapes():
    data = open_dataset("shapes", size=24, count=50)
    assert len(data.train) == 50 and len(data.val) == 500 and len(data.classes) == 10
    assert data.train.read(3).shape == (24, 24, 3)
    more = open_dataset("shapes", size=24, count=60)
    assert np.array_equal(more.val.labels, data.val.labels)  # curves share their test set
    assert np.array_equal(more.train.labels[:50], data.train.labels)
    keys = [{split.key(row) for row in range(len(split))} for split in (data.train, data.val)]
    assert not keys[0] & keys[1]


def test_labels_of_shapes_are_those_that_are_drawn():
    from vitral.data.shapes import draw

    data = open_dataset("shapes", size=16, count=20)
    numbers = [int(data.val.key(row).removeprefix("shapes/")) for row in range(20)]
    assert [draw(0, number, 16).label for number in numbers] == data.val.labels[:20].tolist()


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({}, "No images under"),
        ({"cat": 0, "dog": 0}, "No images under"),
        ({"cat": 3}, "one class only, 'cat'"),
        ({"cat/siam": 3, "cat/angora": 3}, "angora, siam.*give .*cat"),
        ({"val/a": 2, "val/b": 2}, "val/ but no train/"),
        ({"train/tulips": 2, "train/rose": 2, "val/tulip": 2}, "'tulip' .*did you mean 'tulips'"),
        ({"train/a": 2, "train/b": 2, "val/a": 0}, "No images under .*val"),
        ({"a": 1, "b": 1}, "one image"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(tmp_path, counts, sentence):
    with pytest.raises(DataError, match=sentence):
        open_dataset(folder(tmp_path, counts))


def test_a_wrong_path_suggests_a_neighbour(tmp_path):
    folder(tmp_path, {"flowers": 1})
    with pytest.raises(DataError, match=r"does not exist; did you mean .*flowers"):
        open_dataset(tmp_path / "flowrs")
    with pytest.raises(DataError, match="did you mean digits"):
        open_dataset("digit")
    with pytest.raises(DataError, match="is a file"):
        open_dataset(tmp_path / "flowers" / "000.png")


def test_images_without_class_folders(tmp_path):
    folder(tmp_path, {"a": 3})
    with pytest.raises(DataError, match="no class folders"):
        open_dataset(tmp_path / "a")


def test_settings_that_cannot_be(tmp_path):
    with pytest.raises(UsageError, match="val_fraction"):
        open_dataset("digits", val_fraction=1.0)
    with pytest.raises(UsageError, match="count"):
        open_dataset("shapes", count=0)


def test_one_unreadable_file_is_left_out_and_many_stop(tmp_path):
    folder(tmp_path, {"a": 10, "b": 10})
    (tmp_path / "a" / "broken.jpg").write_bytes(b"<html>")
    before = hashes(tmp_path)
    data = open_dataset(tmp_path)
    assert len(data.train) + len(data.val) == 20
    (problem,) = data.problems
    assert problem.path == "a/broken.jpg" and "web page" in problem.reason
    (tmp_path / "b" / "empty.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 22 files .*a/broken.jpg: .*failed download"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, allow_unreadable=True).problems) == 2
    assert {
        path: value for path, value in hashes(tmp_path).items() if "empty" not in path
    } == before


def test_nothing_but_unreadable_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"None of the 1 images .*a/x.jpg: The file is empty"):
        open_dataset(tmp_path)


# ------------------------------------------------------------------ evaluate and predict


def test_labels_are_matched_by_name(tmp_path):
    folder(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 3})
    split = labelled(tmp_path, ["z", "b", "a"])
    assert split.labels.tolist() == [2, 1, 1, 1] and split.key(1) == "val/b/000.png"
    with pytest.raises(DataError, match="class 'b' that the model does not know"):
        labelled(tmp_path, ["a", "z"])


def test_all_class_folders_where_nothing_is_held_out(tmp_path):
    folder(tmp_path, {"a": 2, "b": 3})
    assert len(labelled(tmp_path, ["a", "b"])) == 5
    (tmp_path / "a" / "bad.jpg").write_bytes(b"")
    (tmp_path / "a" / ".DS_Store").write_bytes(b"")
    assert [problem.path for problem in labelled(tmp_path, ["a", "b"]).problems] == ["a/bad.jpg"]


def test_a_held_out_folder_alone_can_be_evaluated(tmp_path):
    folder(tmp_path, {"test/a": 2, "test/b": 3})
    assert len(labelled(tmp_path, ["a", "b"])) == 5


def test_built_in_names_give_their_held_out_part():
    data = open_dataset("digits")
    backwards = labelled("digits", data.classes[::-1])
    assert np.array_equal(backwards.labels, 9 - data.val.labels)
    shapes = open_dataset("shapes", count=1).classes
    assert len(shapes) == 10 and len(labelled("shapes", shapes, size=16)) == 2500
    with pytest.raises(DataError, match="does not know"):
        labelled("digits", ["0", "1"])


def test_what_is_not_known_is_an_error_or_left_out_and_counted(tmp_path):
    folder(tmp_path, {"a": 2, "b": 3, "new": 4, "none": 0})
    with pytest.raises(DataError, match=r"class 'new' that the model does not know.*allow-unknown"):
        labelled(tmp_path, ["b", "z", "a"])
    split, unknown = known(tmp_path, ["b", "z", "a"])
    assert unknown == {"new": 4}
    assert split.labels.tolist() == [2, 2, 0, 0, 0]
    assert [split.key(i) for i in (0, 4)] == ["a/000.png", "b/002.png"]
    assert [(p.path, p.code) for p in split.problems] == [("none", "empty")]
    whole, unknown = known(tmp_path, ["new", "b", "a"])
    assert (len(whole), unknown) == (9, {})
    with pytest.raises(DataError, match="none of the model's classes, but a, b, new; it knows"):
        known(tmp_path, ["x", "y"])
    with pytest.raises(DataError, match="none of the model's classes, but a"):
        labelled(tmp_path, ["x", "y"])


def test_of_multi_labels_one_that_is_not_known_leaves_the_image_out(tmp_path):
    folder(tmp_path, {"pictures": 3})
    rows = "pictures/000.png,a|b\npictures/001.png,b|new\npictures/002.png,\n"
    (tmp_path / "list.csv").write_text(f"path,labels\n{rows}", encoding="utf-8")
    split, unknown = known(tmp_path / "list.csv", ["b", "a"])
    assert unknown == {"new": 1}
    assert split.labels.tolist() == [[True, True], [False, False]]


def test_classes_of_built_in_data_may_be_left_out_too():
    data = open_dataset("digits")
    split, unknown = known("digits", ["7", "3"])
    assert set(unknown) == set("0124568 9") - {" "}
    assert len(split) + sum(unknown.values()) == len(data.val)
    assert {data.classes[i] for i in np.unique(data.val.labels)} == set("0123456789")
    assert np.bincount(split.labels).tolist() == [
        int((data.val.labels == number).sum()) for number in (7, 3)
    ]


def test_two_models_meet_on_the_images_that_neither_learnt_from() -> None:
    split = open_dataset("digits").val
    one = EvalSet(split=split.select([3, 1, 2, 0]), held_out_by_training=True)
    two = EvalSet(split=split.select([5, 0, 1, 4, 3]), unknown={"x": 2})
    a, b = common(one, two)
    keys = [split.key(i) for i in (3, 1, 0)]
    assert [a.split.key(i) for i in range(3)] == [b.split.key(i) for i in range(3)] == keys
    assert a.split.labels.tolist() == b.split.labels.tolist() == split.labels[[3, 1, 0]].tolist()
    assert (a.held_out_by_training, b.held_out_by_training, b.unknown) == (True, False, {"x": 2})
    with pytest.raises(DataError, match="No image is left"):
        common(one, EvalSet(split=split.select([6])))


def test_find_images(tmp_path):
    folder(tmp_path, {"a/deep": 2, "b": 1})
    picture = tmp_path / "b" / "000.png"
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "a" / "broken.jpg").write_text("x")  # predict has an answer for this too
    (tmp_path / ".hidden.png").write_bytes(picture.read_bytes())
    found = find_images([picture, tmp_path])
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    inside = ["a/broken.jpg", "a/deep/000.png", "a/deep/001.png", "b/000.png"]
    assert names == ["b/000.png", *inside], "one answer for every file that was given"
    with pytest.raises(DataError, match=r"000.pgn does not exist; did you mean .*000.png"):
        find_images([tmp_path / "b" / "000.pgn"])
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="No images under"):
        find_images([tmp_path / "c"])


@pytest.mark.proof  # a rate, on an otherwise idle machine
def test_opening_is_fast(tmp_path):
    folder(tmp_path, {"a": 1, "b": 1})
    data = (tmp_path / "a" / "000.png").read_bytes()
    for index in range(1000):
        (tmp_path / "a" / f"{index:05}.png").write_bytes(data)
    open_dataset(tmp_path)
    started = time.process_time()
    open_dataset(tmp_path)
    assert 1000 / (time.process_time() - started) > 2000


def test_a_class_that_cannot_be_decoded_is_none(tmp_path):
    """Headers and ends are whole, so only comparing pictures finds it."""
    draw_folder(tmp_path, kinds=3, each=10)
    for path in (tmp_path / "cross").iterdir():
        spoil(path)
    with pytest.raises(DataError, match="10 of 30 files"):
        open_dataset(tmp_path)
    data = open_dataset(tmp_path, allow_unreadable=True)
    assert data.classes == ("arrow", "crescent")
    assert [p.path for p in data.problems if p.code == "empty"] == ["cross"]
    for split, count in ((data.train, 16), (data.val, 4)):
        assert len(split) == count
        for index in range(count):
            assert split.key(index).startswith(data.classes[split.labels[index]])
            assert split.read(index) == (tmp_path / split.key(index)).read_bytes()
    for path in (tmp_path / "arrow").iterdir():
        spoil(path)
    with pytest.raises(DataError, match="one class only, 'crescent'"):
        open_dataset(tmp_path, allow_unreadable=True)


def test_a_link_that_leads_nowhere_is_called_so(tmp_path):
    (tmp_path / "photos").symlink_to("gone")
    with pytest.raises(DataError, match="photos is a link that leads nowhere"):
        open_dataset(tmp_path / "photos")


def test_held_out_images_are_decoded_before_anything_is_learnt(tmp_path):
    for part, first in (("train", 0), ("val", 5000)):
        draw_folder(tmp_path / part, kinds=3, each=10, first=first)
    spoil(sorted((tmp_path / "val" / "cross").iterdir())[4])
    data = open_dataset(tmp_path)
    assert (len(data.train), len(data.val)) == (30, 29)
    assert [p.code for p in data.problems] == ["unreadable"]
    for index in range(29):
        assert data.val.read(index) == (tmp_path / data.val.key(index)).read_bytes()
        assert data.val.key(index).split("/")[1] == data.classes[data.val.labels[index]]
    for path in sorted((tmp_path / "val" / "cross").iterdir()):
        spoil(path)
    with pytest.raises(DataError, match="10 of 60 files"):
        open_dataset(tmp_path)
    data = open_dataset(tmp_path, allow_unreadable=True)
    assert len(data.classes) == 3, "it can be learnt, and not be scored"
    assert [p.path for p in data.problems if p.code == "unmatched"] == ["val/cross"]
