"""What the user names is recognised, and what cannot be is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitral.data import layouts
from vitral.data.csv_files import Table
from vitral.data.folders import ClassFolders
from vitral.data.sources import SourceOptions
from vitral.data.tar_shards import Shards
from vitral.errors import DataError


@pytest.mark.parametrize(
    ("files", "named", "kind", "place", "held"),
    [
        (["cat/", "dog/"], "", "class folders without splits", ClassFolders, None),
        (["train/", "Val/"], "", "class folders", ClassFolders, "val"),
        (["train/", "testing/"], "", "class folders", ClassFolders, "test"),
        (["train.csv", "img/"], "", "CSV file", Table, None),
        (["Train.CSV", "test.csv", "train/"], "", "CSV files", Table, "test"),
        (["list.csv"], "list.csv", "CSV file", Table, None),
        (["a.tar", "cat/"], "", "tar shards", Shards, None),
        (["train/a.tar", "validation/b.tar"], "", "tar shards", Shards, "val"),
        (["x-train-0.tar", "x-test-0.tar"], "", "tar shards", Shards, "test"),
        (["a.tar"], "a.tar", "tar shards", Shards, None),
        (["all.tar", "cat/1.jpg"], "", "class folders without splits", ClassFolders, None),
        (["all.tar", "train/cat/1.jpg"], "", "class folders", ClassFolders, None),
        (["index.json", "cat/1.jpg"], "", "class folders without splits", ClassFolders, None),
        (["a.tar/1/1.jpg"], "a.tar", "class folders without splits", ClassFolders, None),
        (["a.csv/1/1.jpg"], "a.csv", "class folders without splits", ClassFolders, None),
    ],
)
def test_layouts(tmp_path, files, named, kind, place, held):
    for name in files:
        path = tmp_path / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"")
    for source in (str(tmp_path / named), f"file://{tmp_path / named}"):
        layout = layouts.find(source, SourceOptions())
        assert (layout.kind, type(layout.train)) == (kind, place)
        assert (layout.held_name if layout.held_out else None) == held


def test_a_held_out_folder_alone(tmp_path):
    (tmp_path / "test").mkdir()
    layout = layouts.find(str(tmp_path), SourceOptions())
    assert layout.train is None and str(layout.held_out) == str(tmp_path / "test")


def test_a_folder_called_test_says_nothing_about_the_shards_in_it(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.tar").write_bytes(b"")
    assert layouts.find(str(tmp_path / "test"), SourceOptions()).held_out is None


def test_what_is_none_of_these(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"does not exist; did you mean .*photos"):
        layouts.find(str(tmp_path / "photo"), SourceOptions())
    with pytest.raises(DataError, match="is a file"):
        layouts.find(str(tmp_path / "notes.txt"), SourceOptions())
    with pytest.raises(DataError, match="No tar shards under memory://nothing"):
        layouts.find("memory://nothing", SourceOptions())


def test_a_source_is_found_again_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "digits"):
        Path(name).mkdir()
    for source in ("digits", "shapes", "s3://bucket/a-{0..9}.tar"):
        assert layouts.find(source, SourceOptions()).absolute == source
    for source in ("photos", "./digits", "a-{0..9}.tar"):
        layout = layouts.find(source, SourceOptions())
        assert layout.absolute == str(Path(tmp_path, source))


def test_a_picture_is_no_source_and_says_so_when_it_has_to_be_one(tmp_path):
    (tmp_path / "cat.jpg").write_bytes(b"")
    for name in (tmp_path / "cat.jpg", tmp_path / "none"):
        assert layouts.recognise(str(name), SourceOptions()) is None


def test_a_name_is_one_kind_of_source_alone():
    """A kind that knows a name gives its layout, and every other says None."""
    options = SourceOptions()
    assert [kind("digits", options) is None for kind in layouts.KINDS] == [False] + 6 * [True]
