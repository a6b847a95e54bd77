"""Folders as people make them: hidden files, links, twins, cut-off files."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from vitral.data import folder_splits, layouts
from vitral.data.folders import (
    ClassFolders,
    named_like_an_image,
    read_file_header,
    walk,
)
from vitral.data.sources import SourceOptions
from vitral.errors import DataError


def picture(path: Path, colour: str = "red", format: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), colour).save(path, format)
    return path


def parts(root: Path) -> tuple[Path | None, Path | None]:
    """The folders of training and of held-out images."""
    layout = folder_splits.layout(str(root), SourceOptions())
    found = (layout.train, layout.held_out)
    return tuple(part and part.folder for part in found)


def test_train_and_held_out_by_their_usual_names(tmp_path):
    assert parts(tmp_path) == (tmp_path, None)
    for name in ("Train", "test", "valid"):
        (tmp_path / name).mkdir()
    assert parts(tmp_path) == (tmp_path / "Train", tmp_path / "valid")


def test_a_class_may_be_called_test(tmp_path):
    for name in ("test", "cat"):
        (tmp_path / name).mkdir()
    assert parts(tmp_path) == (tmp_path, None)


def test_nested_files_hidden_files_and_other_files(tmp_path):
    picture(tmp_path / "cat" / "a.jpg")
    picture(tmp_path / "cat" / "deep" / "er" / "b.png")
    picture(tmp_path / "cat" / "no_extension", format="PNG")
    picture(tmp_path / "cat" / "wrong.gif", format="JPEG")
    picture(tmp_path / "cat" / ".hidden.jpg")
    picture(tmp_path / "cat" / ".ipynb_checkpoints" / "a.jpg")
    picture(tmp_path / "cat" / "__MACOSX" / "a.jpg")
    picture(tmp_path / ".cache" / "a.jpg")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "cat" / "notes.txt").write_text("no image, and no fault")
    (tmp_path / "cat" / "download.jpg").write_text("<html>")
    (tmp_path / "empty").mkdir()
    found = ClassFolders(tmp_path, tmp_path).scan()
    assert found.names == ["cat/a.jpg", "cat/deep/er/b.png", "cat/no_extension", "cat/wrong.gif"]
    assert found.classes == ("cat",) and found.empty_classes == ["empty"]
    codes = {problem.path: problem.code for problem in found.problems}
    hidden = (".hidden.jpg", ".ipynb_checkpoints", "Thumbs.db", "__MACOSX")
    assert codes.pop("cat/download.jpg") == "unreadable"
    assert codes == dict.fromkeys([".cache", *(f"cat/{name}" for name in hidden)], "hidden")
    assert found.sizes == [(tmp_path / name).stat().st_size for name in found.names]


def test_a_loop_is_passed_over_and_a_linked_file_is_read_once(tmp_path):
    real = picture(tmp_path / "cat" / "z.jpg")
    picture(tmp_path / "dog" / "d.jpg")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "root").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "cat" / "self").symlink_to(tmp_path / "cat", target_is_directory=True)
    (tmp_path / "cat" / "a.jpg").symlink_to(real)
    (tmp_path / "cat" / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    outside = picture(tmp_path.parent / f"{tmp_path.name}_outside" / "o.jpg")
    (tmp_path / "cat" / "linked").symlink_to(outside.parent, target_is_directory=True)
    found = ClassFolders(tmp_path, tmp_path).scan()
    assert found.names == ["cat/linked/o.jpg", "cat/z.jpg", "dog/d.jpg"]
    codes = {problem.path: problem.code for problem in found.problems}
    loops = dict.fromkeys(["cat/loop", "cat/self", "root"], "loop")
    assert codes == {**loops, "cat/gone.jpg": "unreadable"} and found.classes == ("cat", "dog")


def test_twins_of_a_name_are_one_class(tmp_path):
    composed, split = (unicodedata.normalize(form, "고양이") for form in ("NFC", "NFD"))
    picture(tmp_path / composed / "a.jpg")
    picture(tmp_path / split / "b.jpg")
    found = ClassFolders(tmp_path, tmp_path).scan()
    assert found.labels == [(composed,), (composed,)] and len(found.names) == 2
    assert [problem.code for problem in found.problems] == ["twins"]


def test_walk_is_sorted(tmp_path):
    for name in ("b/2.jpg", "a/10.jpg", "a/9.jpg", "c.jpg"):
        picture(tmp_path / name)
    walked = [
        Path(entry.path).relative_to(tmp_path).as_posix() for entry in walk(tmp_path, [], tmp_path)
    ]
    assert walked == ["a/10.jpg", "a/9.jpg", "b/2.jpg", "c.jpg"]


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_cut_off_file_is_found_and_data_after_the_end_is_not_held_against_it(tmp_path, format):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, format)
    whole, path = buffer.getvalue(), tmp_path / "file"
    for extra in (b"", b"\0" * 100, b"motion photo" * 1000):
        path.write_bytes(whole + extra)
        read_file_header(path)
    for share in (0.02, 0.3, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError):
            read_file_header(path)


def test_a_folder_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot be opened"):
        ClassFolders(tmp_path / "gone", tmp_path).scan()


def test_links_that_lead_to_themselves_are_named(tmp_path):
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "a" / "one.jpg").symlink_to("two.jpg")
    (tmp_path / "a" / "two.jpg").symlink_to("one.jpg")
    (tmp_path / "b").symlink_to("b")
    found = ClassFolders(tmp_path, tmp_path).scan()
    assert found.names == ["a/1.png"]
    assert {p.reason for p in found.problems} == {"The link leads nowhere."}
    named = {p.path: p.code for p in found.problems}
    missing = {f"a/{name}.jpg": "unreadable" for name in ("one", "two")}
    assert named == {"a/self": "loop", "b": "loop", **missing}


def test_what_stands_beside_the_classes_or_the_split_is_named(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "val/a/1.png", "test/a/1.png", "train/x.jpg"):
        picture(tmp_path / name)
    (tmp_path / "train" / "notes.txt").write_text("no image")
    layout = layouts.find(str(tmp_path), SourceOptions())
    found = layout.train.scan()
    assert found.names == ["train/a/1.png", "train/b/1.png"]
    assert [(p.path, p.code) for p in found.problems] == [
        ("test/", "beside"),
        ("train/x.jpg", "beside"),
    ]
    assert not layout.held_out.scan().problems


@pytest.mark.parametrize(
    ("name", "promises"),
    [
        *((name, True) for name in ("a.JPG", "a.qoi", "a.j2k", "a.HIF", "a.b.tiff")),
        *((name, False) for name in ("a.cr3", "a.pcd", "a.mpg", "a.txt", "a", "jpg", "a.jpg.json")),
    ],
)
def test_names_that_promise_an_image(name, promises):
    assert named_like_an_image(name) is promises
