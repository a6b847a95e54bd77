"""Folders as they are unpacked: parts of a split of any name, nested, without labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from drawn import draw_noise, write_text
from vitral.data.check import check
from vitral.data.datasets import open_dataset, open_for_scoring
from vitral.data.sources import Dataset, Division
from vitral.errors import DataError


def tree(root: Path, *folders: str, each: int = 3) -> Path:
    """Pictures in each of these folders, no two alike."""
    return draw_noise(root, [f"{folder}/{i}.png" for folder in folders for i in range(each)])


def said(data: Dataset) -> str:
    return "\n".join(one.sentence for one in data.decisions)


def sides(data: Dataset) -> tuple[set[str], set[str]]:
    """The folders that the images of each side come from."""
    train, val = (
        {split.key(row).rpartition("/")[0] for row in range(len(split))}
        for split in (data.train, data.val)
    )
    return train, val


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("Training", "Test"),
        ("train_set", "val_images"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("asl_alphabet_train/asl_alphabet_train", "asl_alphabet_test"),
        ("training_set/training_set", "test_set/test_set"),
        ("train/images", "val/images"),
        ("train2017", "val2017"),
        ("flowers/train", "flowers/dev"),
        ("train", "hold-out"),
    ],
)
def test_parts_of_a_split_of_any_common_name(tmp_path, train, held_out):
    tree(tmp_path, *(f"{part}/{name}" for part in (train, held_out) for name in ("cat", "dog")))
    data = open_dataset(tmp_path)
    assert data.classes == ("cat", "dog")
    assert sides(data) == ({f"{train}/cat", f"{train}/dog"}, {f"{held_out}/cat", f"{held_out}/dog"})
    assert held_out in said(data) and ("/" not in train or f"{train}/" in said(data))
    assert len(open_for_scoring(tmp_path, ["dog", "cat"]).split) == 6
    top = tmp_path / held_out.partition("/")[0]
    assert len(open_for_scoring(top, ["dog", "cat"]).split) == 6, "one part alone"


@pytest.mark.parametrize(
    "unlabelled", ["test", "test/unknown", "test/test", "test_images", "seg_pred/seg_pred"]
)
def test_pictures_without_labels_are_named_and_not_used(tmp_path, unlabelled):
    prefix = "seg_" if "seg" in unlabelled else ""
    tree(tmp_path, f"{prefix}train/cat", f"{prefix}train/dog", unlabelled, each=5)
    write_text(tmp_path, {"sample_submission.csv": "file,species\n0.png,cat\n"})
    data = open_dataset(tmp_path)
    assert data.classes == ("cat", "dog") and (len(data.train), len(data.val)) == (8, 2)
    top = unlabelled.partition("/")[0]
    assert f"{top}/ has images without labels and is not used" in said(data)
    assert f"vitral predict RUN {tmp_path / top}" in said(data)
    assert not check(tmp_path).refusal


def test_beside_validation_images_too(tmp_path):
    tree(tmp_path, "train/a", "train/b", "val/a", "val/b", "test")
    data = open_dataset(tmp_path)
    assert (len(data.train), len(data.val), data.val.name) == (6, 6, "val")
    assert "test/ has images without labels" in said(data)


@pytest.mark.parametrize(
    "classes",
    [
        ("train", "test", "cat", "dog"),
        ("train", "bus"),
        ("train_station", "test_tube"),
        ("train/2020", "train/2021", "bus/2020", "bus/2021"),
        ("test", "cat"),
    ],
)
def test_a_class_may_be_called_train_or_test(tmp_path, classes):
    tree(tmp_path, *classes)
    data = open_dataset(tmp_path)
    assert set(data.classes) == {name.partition("/")[0] for name in classes}


def test_folders_of_another_meaning_beside_a_split_are_named(tmp_path):
    tree(tmp_path, "train/a", "train/b", "val/a", "extra")
    data = open_dataset(tmp_path)
    assert [(p.path, p.code) for p in data.problems] == [
        ("extra/", "beside"),
        ("val/b", "unmatched"),
    ]


def test_an_empty_part_is_none(tmp_path):
    tree(tmp_path, "train/a", "train/b")
    (tmp_path / "val").mkdir()
    assert (len(open_dataset(tmp_path).train)) == 4


@pytest.mark.parametrize("inner", ["images", "PetImages/..", "data/images"])
def test_everything_in_one_folder_more(tmp_path, inner):
    root = tmp_path / "pets"
    inner = inner.replace("PetImages/..", "pets")
    tree(root, f"{inner}/cat", f"{inner}/dog")
    write_text(root, {"notes/readme.md": "x", "licence.txt": "y"})
    data = open_dataset(root)
    assert data.classes == ("cat", "dog") and f"The folders of {inner}/ are read" in said(data)


def test_files_that_are_no_pictures_are_counted_by_their_ending(tmp_path):
    for name in ("normal/1.dcm", "normal/2.dcm", "ill/3.dcm", "ill/4.nii.gz", "ill/readme"):
        write_text(tmp_path, {name: "x"})
    with pytest.raises(DataError, match=r"3 files ending in \.dcm \(DICOM\).*such as ill/3\.dcm"):
        open_dataset(tmp_path)
    found = check(tmp_path)
    assert "Convert them to PNG" in found.refusal
    assert "1 file ending in .nii.gz (NIfTI volumes)" in found.refusal
    assert "1 file without an ending" in found.refusal


def test_a_class_without_pictures_says_what_it_holds(tmp_path):
    tree(tmp_path, "cat", "dog")
    write_text(tmp_path, {"film/a.mp4": "x", "film/b.mp4": "y"})
    (problem,) = [p for p in open_dataset(tmp_path).problems if p.code == "empty"]
    assert problem.path == "film"
    assert "2 files ending in .mp4 (videos), such as a.mp4" in problem.reason
    assert "ffmpeg" in problem.reason


def test_validation_images_come_before_those_of_an_evaluation(tmp_path):
    """As Food-11 calls its parts."""
    parts = ("training", "validation", "evaluation")
    tree(tmp_path, *(f"{part}/{name}" for part in parts for name in ("a", "b")))
    data = open_dataset(tmp_path)
    assert sides(data)[1] == {"validation/a", "validation/b"}
    assert f"vitral evaluate RUN {tmp_path / 'evaluation'}" in said(data)


@pytest.mark.parametrize("held_out", ["seg_test", "seg_test/seg_test", ""])
def test_what_training_held_out_is_known_again(tmp_path, held_out):
    """The calibration was fitted on these images, which an evaluation has to know."""
    parts = ("seg_train/seg_train", "seg_test/seg_test")
    tree(tmp_path, *(f"{part}/{name}" for part in parts for name in ("cat", "dog")))
    data = open_dataset(tmp_path)
    division = Division(source=str(tmp_path), fingerprint=data.fingerprint)
    found = open_for_scoring(tmp_path / held_out, data.classes, division=division)
    assert found.held_out_by_training
    found = open_for_scoring(tmp_path / "seg_train", data.classes, division=division)
    assert not found.held_out_by_training


def test_class_folders_that_all_hold_the_same_folders_are_doubted(tmp_path):
    """As PlantVillage has its pictures in colour, grey and cut out."""
    kinds = ("color", "grayscale")
    tree(tmp_path, *(f"{kind}/{name}" for kind in kinds for name in ("blight", "healthy")))
    data = open_dataset(tmp_path)
    assert "Every class folder holds the same folders (blight, healthy)" in said(data)
    advice = str(tmp_path / "color")
    assert f"such as {advice}." in said(data) and open_dataset(advice).classes == (
        "blight",
        "healthy",
    )


def test_parts_of_a_split_in_each_class_folder(tmp_path):
    parts = ("train", "test")
    tree(tmp_path, *(f"{name}/{part}" for part in parts for name in ("cat", "dog")))
    data = open_dataset(tmp_path)
    assert data.classes == ("cat", "dog")
    assert sides(data) == ({"cat/train", "dog/train"}, {"cat/test", "dog/test"})
    assert "Each class folder holds the parts of the split" in said(data)
    assert len(open_for_scoring(f"{tmp_path}@test", ["cat", "dog"]).split) == 6
    with pytest.raises(DataError, match="has no split with a part val"):
        open_for_scoring(f"{tmp_path}@val", ["cat", "dog"])
    tree(tmp_path, "cat/masks", "dog/masks")
    assert "Other folders in them are not used: masks" in said(open_dataset(tmp_path))


@pytest.mark.parametrize(
    "folders",
    [("box_train", "box_test", "query"), ("train", "test", "extra"), ("cars_train", "cars_test")],
)
def test_parts_of_a_split_are_never_learnt_as_classes(tmp_path, folders):
    with pytest.raises(DataError, match="train has images but no class folders"):
        open_dataset(tree(tmp_path, *folders))
