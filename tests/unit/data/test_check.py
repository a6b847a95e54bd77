"""Everything that is wrong with a data set is found, named and counted; nothing else is."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn import draw_folder, hashes, spoil
from shared import SHARED
from tiffs import tiff
from vitral.data.check import EFFECTS, check
from vitral.data.datasets import open_dataset
from vitral.data.shapes import draw
from vitral.errors import DataError
from vitral.images.decode import decode
from vitral.planning.plan import plan
from vitral.planning.request import Request


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Three sound classes, and one example of everything that can be wrong with a folder."""
    root = draw_folder(tmp_path / "messy", kinds=3, each=14, size=64)
    arrow, cross = root / "arrow", root / "cross"
    pictures = sorted(arrow.iterdir())
    data = pictures[0].read_bytes()
    (arrow / "web.jpg").write_bytes(b"<html>")
    (arrow / "cut.jpg").write_bytes(data[: len(data) // 2])
    fresh = (Image.fromarray(draw(9, index, 64).image) for index in range(20))
    next(fresh).save(arrow / "wrong.png", "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    next(fresh).save(arrow / "turned.jpg", exif=exif)
    Image.fromarray(np.asarray(next(fresh).convert("L"), np.uint16) * 257).save(arrow / "deep.png")
    next(fresh).convert("RGBA").save(arrow / "clear.png")
    (arrow / "same.jpg").write_bytes(pictures[1].read_bytes())
    Image.open(pictures[2]).save(arrow / "near.jpg", quality=60)
    (cross / "other.jpg").write_bytes(pictures[3].read_bytes())
    (arrow / "loop").symlink_to(root, target_is_directory=True)
    (arrow / ".DS_Store").write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    for form in ("NFC", "NFD"):
        folder = root / unicodedata.normalize(form, "é")
        folder.mkdir()
        for index in range(6):
            next(fresh).save(folder / f"{form}{index}.jpg")
    (root / "bare").mkdir()
    (root / "few").mkdir()
    next(fresh).save(root / "few" / "1.jpg")
    (root / "Few").mkdir()
    next(fresh).save(root / "Few" / "1.jpg")
    return root


EXPECTED = {
    "unreadable": ["arrow/web.jpg"],
    "truncated": ["arrow/cut.jpg"],
    "extension": ["arrow/wrong.png"],
    "rotated": ["arrow/turned.jpg"],
    "16-bit": ["arrow/deep.png"],
    "transparent": ["arrow/clear.png"],
    "loop": ["arrow/loop"],
    "hidden": ["__MACOSX", "arrow/.DS_Store"],
    "twins": [unicodedata.normalize("NFC", "é")],
    "similar-names": ["Few", "few"],
    "empty": ["bare"],
    "small": ["Few", "few"],
}


def test_every_problem_is_found_and_named(messy):
    before = hashes(messy)
    found = check(messy, full=True)
    paths = {code: [p.path for p in problems] for code, problems in found.problems.items()}
    copies = {code: paths.pop(code) for code in ("duplicate", "near-duplicate", "two-classes")}
    assert len(copies["duplicate"]) == 2 and "arrow/same.jpg" in copies["duplicate"]
    assert len(copies["near-duplicate"]) == 1
    (both,) = found.problems["two-classes"]
    assert {"'arrow'", "'cross'"} <= set(both.reason.replace("|", " ").split())
    twins = paths.pop("twins")
    assert [unicodedata.normalize("NFC", path) for path in twins] == EXPECTED["twins"]
    assert paths == {code: names for code, names in EXPECTED.items() if code != "twins"}
    assert hashes(messy) == before, "the user's files are never written"
    assert list(found.problems) == [code for code in EFFECTS if code in found.problems]


def test_without_full_only_headers_and_equal_files(messy, monkeypatch):
    from vitral.data import near_duplicates

    monkeypatch.setattr(near_duplicates, "thumbnails_of", None)  # decoding would fail
    found = check(messy)
    assert "near-duplicate" not in found.problems and len(found.problems["duplicate"]) == 2
    assert "--full" in found.how and not found.full


def test_pictures_in_which_nothing_is_seen(tmp_path):
    root = draw_folder(tmp_path / "data", kinds=2, each=8)
    hidden = Image.open(next((root / "arrow").iterdir())).convert("RGBA")
    hidden.putalpha(0)
    hidden.save(root / "arrow" / "hidden.png")
    Image.new("RGB", (20, 20), "#102030").save(root / "crescent" / "flat.png")
    found = check(root, full=True)
    assert [p.path for p in found.problems["unseen"]] == ["arrow/hidden.png"]
    assert found.problems["flat"][0].path == "crescent/flat.png"
    assert "#102030" in found.problems["flat"][0].reason
    assert found.refusal == ""
    data = open_dataset(root)
    said = {problem.code: problem.path for problem in data.problems}
    assert said == {"unseen": "arrow/hidden.png", "flat": "crescent/flat.png"}
    assert np.ptp(decode(data.train.read(0))) > 0


def test_pictures_in_which_nothing_is_seen_beside_a_split_of_ones_own(tmp_path):
    root = tmp_path / "data"
    draw_folder(root / "train", kinds=2, each=4)
    draw_folder(root / "val", kinds=2, each=4, first=100)
    for side in ("train", "val"):
        hidden = Image.open(next((root / side / "arrow").iterdir())).convert("RGBA")
        hidden.putalpha(0)
        hidden.save(root / side / "arrow" / "hidden.png")
    said = [problem.path for problem in open_dataset(root).problems if problem.code == "unseen"]
    assert said == ["train/arrow/hidden.png", "val/arrow/hidden.png"]


def test_bands_have_to_be_chosen(tmp_path):
    dice = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(4):
            values = dice.integers(200, 3000, (12, 12, 13), np.uint16)
            (tmp_path / name / f"{index}.tif").write_bytes(tiff(values))
    found = check(tmp_path, full=True)
    assert found.images == 8
    assert len(found.problems["bands"]) == 8
    assert not {"unreadable", "flat", "near-duplicate"} & set(found.problems)
    assert re.search(r"a/0.tif. It is a TIFF of 13 bands.*--set images.bands=", found.refusal)
    with pytest.raises(DataError, match=r"--set images\.bands="):
        plan(Request(data=str(tmp_path), size=32))
    planned = plan(Request(data=str(tmp_path), size=32, changes=["images.bands=[4, 3, 2]"]))
    low, high = planned.recipe.images.value_range
    assert 200 <= low < 230
    assert 2970 < high < 3000
    assert planned.origins["images.value_range"] == "measured on the images"
    chosen = ["images.bands=[4,3,2]", "images.value_range=[0,4000]"]
    planned = plan(Request(data=str(tmp_path), size=32, changes=chosen))
    assert planned.recipe.images.value_range == (0.0, 4000.0)
    with pytest.raises(DataError, match=r"a/\d.tif: The TIFF has 13 bands.* band 14"):
        plan(Request(data=str(tmp_path), size=32, changes=["images.bands=[14,3,2]"]))


def test_numbers(messy):
    found = check(messy, full=True)
    assert found.layout == "class folders without splits"
    assert (
        found.classes["arrow"] == 14 + 6 and found.classes[unicodedata.normalize("NFC", "é")] == 12
    )
    assert found.images == sum(found.classes.values()) and found.balance == 20
    assert found.sizes == ((64, 64),) * 3
    with pytest.raises(DataError) as caught:
        open_dataset(messy)
    assert found.refusal == str(caught.value) and "more than 1 %" in found.refusal


def test_the_split_is_the_one_that_training_makes(messy):
    data, found = open_dataset(messy, allow_unreadable=True), check(messy, full=True)
    assert found.train is not None and found.val is not None
    assert (found.train.images, found.val.images) == (len(data.train), len(data.val))
    counts = np.bincount(data.val.labels, minlength=len(data.classes)).tolist()
    assert list(found.val.classes.values()) == counts
    held = {data.val.key(index) for index in range(len(data.val))}
    for problem in (*found.problems["duplicate"], *found.problems["near-duplicate"]):
        other = problem.reason.rstrip(".").split()[-1]
        assert (problem.path in held) == (other in held), "copies stay on one side"


def test_leakage_between_splits_of_the_users_own(tmp_path):
    draw_folder(tmp_path / "train", kinds=2, each=12)
    draw_folder(tmp_path / "val", kinds=2, each=10, first=500)
    picture = sorted((tmp_path / "train" / "arrow").iterdir())[0]
    (tmp_path / "val" / "arrow" / "x.jpg").write_bytes(picture.read_bytes())
    found = check(tmp_path)
    (leak,) = found.problems["leakage"]
    assert leak.path == f"train/arrow/{picture.name}" and "val/arrow/x.jpg" in leak.reason
    assert found.how == "its own" and not found.refusal
    assert set(found.problems) == {"duplicate", "leakage"}


def test_a_sound_folder_has_no_problem_and_is_what_it_is(photos):
    found = check(photos, full=True)
    assert found.problems == {} and not found.refusal and found.balance == 1
    assert found.train is not None and sum(found.train.classes.values()) == found.train.images == 30


def test_json_is_plain_and_has_five_examples(photos):
    for index in range(8):
        (photos / "arrow" / f"bad{index}.jpg").write_bytes(b"<html>")
    found = json.loads(json.dumps(check(photos).to_dict()))
    (problem,) = found["problems"]
    assert problem["code"] == "unreadable" and problem["count"] == 8
    assert len(problem["examples"]) == 5 and problem["examples"][0]["path"] == "arrow/bad0.jpg"
    assert found["ready"] is False and "8 of 44 files" in found["refusal"]
    assert found["sizes"] == {"min": [32, 32], "median": [32, 32], "max": [32, 32]}
    assert found["split"]["train"]["images"] == 30 and len(found["classes"]) == 3


def test_rows_of_a_list(tmp_path):
    draw_folder(tmp_path, kinds=2, each=3)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg"))
    rows = [f"{name},{name.split('/')[0]}" for name in names]
    (tmp_path / "train.csv").write_text("\n".join(["path,label", *rows, "gone.jpg,arrow", ","]))
    found = check(tmp_path)
    assert found.layout == "CSV file" and found.images == 6
    assert [(code, len(p)) for code, p in found.problems.items()] == [
        ("empty-row", 1),
        ("missing", 1),
        ("small", 2),
    ]
    assert "name no file: 1" in found.refusal


def test_built_in_names():
    found = check("digits")
    assert found.images == 1797 and found.train is not None and found.train.images == 1438
    assert found.problems == {} and len(found.classes) == 10


def test_progress_counts_all_places(tmp_path):
    draw_folder(tmp_path / "train", kinds=2, each=4)
    draw_folder(tmp_path / "val", kinds=2, each=2, first=500)
    seen: list[tuple[int, int]] = []
    check(tmp_path, full=True, tick=lambda *given: seen.append(given))
    assert seen == [(done, 12) for done in range(1, 13)]


def test_nothing_to_look_at(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        check(tmp_path / "none")
    assert "No images" in check(tmp_path).refusal


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_folders_without_permission_do_not_stop_it(photos):
    os.mkfifo(photos / "arrow" / "pipe.jpg")
    (photos / "arrow" / "link.jpg").symlink_to(photos / "arrow" / "pipe.jpg")
    assert check(photos, full=True).images == 36


@pytest.fixture
def bad_inputs(tmp_path: Path) -> Path:
    archive = SHARED / "data" / "badinputs.tar.gz"
    if not archive.exists():
        pytest.skip("shared/data/badinputs.tar.gz is not here")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    draw_folder(tmp_path / "badinputs" / "good", kinds=1, each=10)
    return tmp_path / "badinputs"


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.proof)])
def test_real_bad_files_are_each_used_or_named(bad_inputs, full, capfd):
    started = time.monotonic()
    found = check(bad_inputs, full=full)
    capfd.readouterr()  # libtiff speaks to the terminal by itself
    lines = (bad_inputs / "manifest.jsonl").read_text().splitlines()
    known = [json.loads(line) for line in lines]
    left_out = {
        problem.path
        for code in ("unreadable", "truncated")
        for problem in found.problems.get(code, ())
    }
    undecodable = {entry["file"] for entry in known if entry["pillow"].startswith("error")}
    sound = {entry["file"] for entry in known if entry["pillow"] == "decodes"}
    assert len(left_out & sound) < 6
    if full:
        assert len(undecodable - left_out) < 6, "each one is named"
    assert "more than 1 %" in found.refusal
    assert time.monotonic() - started < 120


def test_a_folder_as_people_make_it(tmp_path):
    """Six uneven classes, pictures of 3,000 pixels, grey ones among colour: nothing is wrong."""
    dice, index = np.random.default_rng(0), 0
    for number, count in enumerate((40, 25, 16, 14, 12, 10)):
        folder = tmp_path / f"kind {number}"
        folder.mkdir()
        for row in range(count):
            index += 1
            image = Image.fromarray(draw(3, index, 48).image)
            if row == 0:
                image = image.resize((3000, 2000 + 100 * number))
            if dice.random() < 0.2:
                image = image.convert("L")
            image.save(folder / f"IMG {row}.jpg")
    found = check(tmp_path, full=True)
    assert found.problems == {} and not found.refusal and found.balance == 4
    assert found.sizes == ((48, 48), (48, 48), (2500, 3000))
    assert found.val is not None
    assert list(found.val.classes.values()) == [8, 5, 3, 3, 2, 2]


def test_shards_are_checked_like_files(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set" / "a.tar", "w") as tar:
        for index in range(24):
            data = io.BytesIO()
            Image.fromarray(draw(0, index % 23, 32).image).save(data, "PNG")
            files = {"png": data.getvalue(), "cls": b"%d" % (index % 2)}
            for extension, content in files.items():
                member = tarfile.TarInfo(f"{index:03}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    found = check(tmp_path / "set")
    assert found.layout == "tar shards" and found.images == 24
    assert [p.path for p in found.problems["duplicate"]] == ["a.tar/023.png"]
    assert [p.path for p in found.problems["two-classes"]] == ["a.tar/000.png"]


def test_what_cannot_be_decoded_counts_in_no_class(photos):
    first, *others = sorted(path for path in photos.iterdir())
    for path in first.iterdir():
        spoil(path)
    looked, full = check(photos), check(photos, full=True)
    assert looked.classes.keys() == {first.name, *(path.name for path in others)}
    assert full.classes.keys() == {path.name for path in others}
    assert full.images == sum(full.classes.values()) < looked.images
    assert [p.path for p in full.problems["empty"]] == [first.name]
