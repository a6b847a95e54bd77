"""Files that are no pictures: their kind by their ending, and the way out."""

from __future__ import annotations

import pytest

from drawn import write_text
from vitral.data.other_files import KINDS, kind_of, label_files, other_files


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("1.DCM", "DICOM"),
        ("brain.nii.gz", "NIfTI volumes"),
        ("t10k-images-idx3-ubyte.gz", "arrays of MNIST"),
        ("a.tar.gz", "archives"),
        ("IMG_1.CR2", "raw photos of a camera"),
        ("a.jpg", None),
        ("notes", None),
    ],
)
def test_kinds(name, kind):
    found = kind_of(name)
    assert (found and found.name) == kind


def test_an_ending_is_of_one_kind():
    endings = [ending for kind in KINDS for ending in kind.endings]
    assert len(set(endings)) == len(endings)


def test_files_are_counted_and_the_known_kind_shown_first(tmp_path):
    names = [*(f"notes/{i}.txt" for i in range(3)), "b/1.mp4", "b/2.mp4", ".hidden.mp4", "c.png"]
    write_text(tmp_path, dict.fromkeys(names, "x"))
    sentence = other_files(tmp_path).sentence()
    assert sentence.startswith("There are 2 files ending in .mp4 (videos), 3 files ending in .txt")
    assert "such as b/1.mp4" in sentence and "ffmpeg" in sentence
    (tmp_path / "one").mkdir()
    assert other_files(tmp_path / "one").sentence() == ""
    write_text(tmp_path / "one", {"a.pdf": "x"})
    assert other_files(tmp_path / "one").sentence().startswith("There is 1 file ending in .pdf")


def test_files_that_may_hold_labels(tmp_path):
    assert label_files(tmp_path) == ""
    write_text(tmp_path, {"devkit/annos.mat": "x", "labels.xlsx": "x", "Annotations/1.xml": "x"})
    sentence = label_files(tmp_path)
    for name in ("devkit/annos.mat", "labels.xlsx", "Annotations/1.xml"):
        assert name in sentence
