"""The column of the labels, chosen by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from drawn import draw_noise, write_text
from vitral.data.datasets import divided_by_training, open_dataset
from vitral.data.sources import Division
from vitral.errors import DataError

ROWS = [f"{i}.png,{'ab'[i % 2]}a,{'xyz'[i % 3]}x,{i % 5}" for i in range(30)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draw_noise(tmp_path, [f"{i}.png" for i in range(30)])
    return write_text(tmp_path, {"table.csv": "\n".join(["path,label,habitat,split", *ROWS])})


@pytest.mark.parametrize("folder", [True, False])
def test_a_column_by_name(root, folder):
    source = root if folder else root / "table.csv"
    assert open_dataset(source).classes == ("aa", "ba")
    data = open_dataset(source, label_column="Habitat")
    assert data.classes == ("xx", "yx", "zx")
    said = [one.sentence for one in data.decisions]
    assert "Column 'habitat' of table.csv is the label, as was asked." in said
    assert open_dataset(source, label_column="split").classes == ("0", "1", "2", "3", "4")
    division = Division(str(source), data.fingerprint, label_column="habitat")
    assert divided_by_training(source, division, None) is not None


def test_a_table_of_asked_labels_goes_before_class_folders(tmp_path):
    names = [f"{'ab'[i % 2]}a/{i}.png" for i in range(20)]
    rows = [f"{name},{name[:2]},{'xy'[i // 10]}x" for i, name in enumerate(names)]
    draw_noise(tmp_path, names)
    write_text(tmp_path, {"table.csv": "\n".join(["path,label,habitat", *rows])})
    assert open_dataset(tmp_path).classes == ("aa", "ba")
    assert open_dataset(tmp_path, label_column="habitat").classes == ("xx", "yx")


def test_a_column_that_is_not_there(root, tmp_path):
    with pytest.raises(DataError, match=r"label_column=wing: .* is not there; its columns have"):
        open_dataset(root / "table.csv", label_column="wing")
    with pytest.raises(DataError, match=r"label_column=wing: "):
        open_dataset(root, label_column="wing")
    with pytest.raises(DataError, match="names the pictures"):
        open_dataset(root / "table.csv", label_column="path")
    folders = draw_noise(tmp_path / "folders", ["a/1.png", "a/2.png", "b/1.png", "b/2.png"])
    with pytest.raises(DataError, match="is no table"):
        open_dataset(folders, label_column="wing")
