"""Sources without labels: images anywhere in a folder, lists of paths, shards and tables alone."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn import spoil
from vitral.data.datasets import open_dataset
from vitral.data.sources import Dataset
from vitral.errors import DataError


def picture(seed: int) -> Image.Image:
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (10, 12, 3), dtype=np.uint8))


def draw(root: Path, names: list[str]) -> Path:
    """Pictures of these names below a folder, no two alike."""
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(root / name)
    return root


def flat(count: int) -> list[str]:
    return [f"{number:02}.png" for number in range(count)]


def keys(data: Dataset) -> list[list[str]]:
    return [[split.key(row) for row in range(len(split))] for split in (data.train, data.val)]


def everything(data: Dataset) -> list[str]:
    return sorted(key for side in keys(data) for key in side)


def broken(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    picture(99).save(path)
    spoil(path)


def codes(data: Dataset) -> list[tuple[str, str]]:
    return [(problem.path, problem.code) for problem in data.problems]


def has_no_labels(data: Dataset) -> bool:
    splits = (data.train, data.val)
    return data.classes == () and all(
        split.labels.dtype == np.int64
        and split.labels.shape == (len(split),)
        and (split.labels == -1).all()
        for split in splits
    )


def test_a_flat_folder_is_split_by_its_seed(tmp_path):
    draw(tmp_path, flat(20))
    data = open_dataset(tmp_path, labelled=False)
    assert has_no_labels(data) and not data.problems and not data.multi_label
    assert (len(data.train), len(data.val)) == (16, 4)
    assert everything(data) == flat(20)
    assert open_dataset(tmp_path, labelled=False).fingerprint == data.fingerprint
    other = open_dataset(tmp_path, labelled=False, seed=1)
    assert other.fingerprint != data.fingerprint and keys(other) != keys(data)


def test_any_nesting_is_read_and_its_names_are_no_labels(tmp_path):
    names = [*flat(4), *(f"2024/{name}" for name in flat(4)), *(f"2024/may/{n}" for n in flat(4))]
    data = open_dataset(draw(tmp_path, names), labelled=False)
    assert has_no_labels(data) and everything(data) == sorted(names)
    assert codes(data) == [(str(tmp_path), "labels-unused")]


def test_class_folders_lose_their_classes_and_keep_their_split(tmp_path):
    names = [f"{split}/{name}" for split in ("train/a", "train/b", "val/c") for name in flat(3)]
    data = open_dataset(draw(tmp_path, [*names, "other/x.png"]), labelled=False)
    assert has_no_labels(data)
    assert keys(data) == [names[:6], names[6:]]
    assert codes(data) == [("other/", "beside"), (str(tmp_path), "labels-unused")]


def test_a_source_without_labels_is_another_source(tmp_path):
    draw(tmp_path, [f"{name}/{file}" for name in "ab" for file in flat(5)])
    prints = {open_dataset(tmp_path, labelled=labelled).fingerprint for labelled in (True, False)}
    assert len(prints) == 2


def test_copies_stay_on_one_side(tmp_path):
    draw(tmp_path, flat(12))
    for name in flat(12):
        shutil.copy(tmp_path / name, tmp_path / f"again-{name}")
    for seed in range(5):
        train, val = keys(open_dataset(tmp_path, labelled=False, seed=seed))
        assert not {k.removeprefix("again-") for k in train} & {k[-6:] for k in val}


def test_nothing_but_copies_is_divided_and_said(tmp_path):
    for name in flat(4):
        picture(0).save(tmp_path / name)
    data = open_dataset(tmp_path, labelled=False)
    assert len(data.train) + len(data.val) == 4 and len(data.val)
    assert codes(data) == [(str(tmp_path), "leakage")]


def test_what_is_wrong_is_a_sentence_each(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "notes.txt").write_text("no picture")
    draw(tmp_path / "one", flat(1))
    for number in range(3):
        broken(tmp_path / "broken" / f"{number}.jpg")
    draw(tmp_path / "held", ["val/1.png"])
    for name, sentence in {
        "empty": "No images under .*empty",
        "words": "No images under .*words",
        "one": "one has one image; add more, to hold some out",
        "broken": "None of the 3 images under .*broken can be read",
        "held": "has val/ but no train/",
        "gone": "does not exist",
        "words/notes.txt": "is a file; name a folder that holds images",
    }.items():
        with pytest.raises(DataError, match=sentence) as caught:
            open_dataset(tmp_path / name, labelled=False)
        assert "class" not in str(caught.value).replace(str(tmp_path), "")


def test_an_unreadable_image_is_left_out_and_named(tmp_path):
    draw(tmp_path, flat(6))
    broken(tmp_path / "99.jpg")
    data = open_dataset(tmp_path, labelled=False)
    assert [path for path, _ in codes(data)] == ["99.jpg"] and len(data.train) + len(data.val) == 6
    broken(tmp_path / "98.jpg")
    with pytest.raises(DataError, match=r"2 of 8 files .* cannot be read, more than 1 %"):
        open_dataset(tmp_path, labelled=False)
    assert len(open_dataset(tmp_path, labelled=False, allow_unreadable=True).problems) == 2


def test_links_that_lead_back_are_passed_over(tmp_path):
    draw(tmp_path, ["a/1.png", "a/2.png"])
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "again.png").symlink_to(tmp_path / "a" / "1.png")
    data = open_dataset(tmp_path, labelled=False)
    assert everything(data) == ["a/1.png", "a/2.png"]


def test_with_labels_the_recipe_without_any_is_named(tmp_path):
    draw(tmp_path, flat(3))
    with pytest.raises(DataError, match=r"no class folders.*--recipe masked-patches"):
        open_dataset(tmp_path)


def test_a_list_of_paths(tmp_path):
    draw(tmp_path, flat(5))
    (tmp_path / "all.csv").write_text("path\n" + "\n".join(flat(5)) + "\nnowhere.png\n\n")
    with pytest.raises(DataError, match="rows that name no file: 1"):
        open_dataset(tmp_path / "all.csv", labelled=False)
    data = open_dataset(tmp_path / "all.csv", labelled=False, allow_unreadable=True)
    assert has_no_labels(data) and codes(data) == [("nowhere.png", "missing")]
    assert everything(data) == flat(5)
    with pytest.raises(DataError, match="names the columns, path and label"):
        open_dataset(tmp_path / "all.csv")
    (tmp_path / "all.csv").write_text("motif\n00\n")
    with pytest.raises(DataError, match="names the column, path, not 'motif'"):
        open_dataset(tmp_path / "all.csv", labelled=False)


def test_labels_of_a_list_are_not_used(tmp_path):
    """Nor does anything that is wrong with them matter."""
    draw(tmp_path, flat(4))
    rows = ["00.png,a", "01.png,A", "02.png,", "03.png,x|y", "03.png,z"]
    (tmp_path / "all.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    data = open_dataset(tmp_path / "all.csv", labelled=False)
    assert has_no_labels(data) and everything(data) == flat(4)
    assert codes(data) == [("all.csv", "labels-unused"), ("03.png", "repeated")]


def test_shards_without_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for seed, name in enumerate(flat(6)):
            file = io.BytesIO()
            picture(seed).save(file, "PNG")
            member = tarfile.TarInfo(name)
            member.size = file.tell()
            tar.addfile(member, io.BytesIO(file.getvalue()))
    for _ in range(2):  # read, and remembered
        data = open_dataset(tmp_path / "train.tar", labelled=False)
        assert has_no_labels(data) and len(data.train) + len(data.val) == 6 and not data.problems
        with pytest.raises(DataError, match="has no label"):
            open_dataset(tmp_path / "train.tar")


def test_a_table_without_labels(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = []
    for seed in range(6):
        file = io.BytesIO()
        picture(seed).save(file, "PNG")
        rows.append({"bytes": file.getvalue(), "path": None})
    datasets.Dataset.from_dict({"image": rows}).to_parquet(str(tmp_path / "t.parquet"))
    data = open_dataset(tmp_path / "t.parquet", labelled=False)
    assert has_no_labels(data) and len(data.train) + len(data.val) == 6 and not data.problems
    with pytest.raises(DataError, match="no column of labels"):
        open_dataset(tmp_path / "t.parquet")


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_built_in_sources_without_labels(name):
    data = open_dataset(name, labelled=False, count=20 if name == "shapes" else None)
    known = open_dataset(name, count=20 if name == "shapes" else None)
    assert has_no_labels(data) and keys(data)[1] != [] and data.fingerprint != known.fingerprint
    assert isinstance(data.train.read(0), np.ndarray)
