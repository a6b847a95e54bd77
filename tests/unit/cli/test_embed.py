"""embed, as it is typed."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import vitral.cli.embed  # noqa: F401 - hangs the verb on the application
from drawn import hashes
from vitral import create
from vitral.features import embed
from vitral.loading import load
from vitral.specs import ImageSpec
from vitral.weights import artifact
from vitral.weights.card import Card


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An artifact of three classes that the photos do not have."""
    model = create("mu/16", classes=3, size=32)
    card = Card(model=model.spec, images=ImageSpec(size=(32, 32)), classes=("x", "y", "z"))
    artifact.save(tmp_path / "run", model.state_dict(), card)
    return tmp_path / "run"


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_an_array_with_its_list(vitral, run: Path, photos: Path, tmp_path: Path) -> None:
    before, target = hashes(photos), tmp_path / "deep" / "photos.npy"
    code, out, err = vitral("embed", run, photos, "--out", target, "--batch", "7")
    assert code == 0 and not err, err
    assert out == f"written: {target}: 36 images, {load(run).card.model.width} numbers each\n"
    expected = embed(load(run), [photos])
    vectors = np.load(target)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected.vectors, atol=1e-5)
    rows = rows_of(target.with_suffix(".csv"))
    assert rows[0] == ["path", "label"]
    assert [tuple(row) for row in rows[1:]] == list(
        zip(expected.paths, expected.labels or (), strict=True)
    )
    assert hashes(photos) == before
    assert vitral("embed", run, photos, "--out", target)[0] == 0  # its own are written anew


def test_parquet_read_back(vitral, run: Path, photos: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="of the extra data")
    (photos / "고양이").mkdir()
    picture = next((photos / "cross").iterdir())
    picture.rename(photos / "고양이" / picture.name)
    target = tmp_path / "photos.parquet"
    code, out, err = vitral("embed", run, photos, "--out", target, "--json")
    assert code == 0 and not err, err
    values = json.loads(out)
    assert values == {"rows": 36, "width": load(run).card.model.width, "out": str(target)}
    table, expected = parquet.read_table(target), embed(load(run), [photos])
    assert table.column_names == ["path", "label", "embedding"]
    assert str(table.schema.field("embedding").type).endswith(f"float>[{values['width']}]")
    assert table["path"].to_pylist() == list(expected.paths)
    assert table["label"].to_pylist() == list(expected.labels or ())
    assert "고양이" in table["label"].to_pylist()
    np.testing.assert_allclose(np.stack(table["embedding"].to_numpy()), expected.vectors, atol=1e-5)


def test_images_without_labels(vitral, run: Path, photos: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="of the extra data")
    files = sorted(photos.rglob("*.jpg"))[:2]
    bad = tmp_path / "bad.jpg"
    bad.write_text("<html>")
    target = tmp_path / "few.npy"
    code, out, err = vitral("embed", run, files[1], bad, files[0], "--out", target)
    assert code == 0 and "2 images" in out
    assert f"{bad}: " in err
    rows = rows_of(target.with_suffix(".csv"))
    assert rows == [["path"], [str(files[1])], [str(files[0])]]
    code, _, err = vitral("embed", run, bad, "--out", tmp_path / "none.npy")
    assert code == 3 and "None of the 1 files" in err
    assert not (tmp_path / "none.npy").exists()
    code, _, err = vitral("embed", run, *files, "--out", tmp_path / "few.parquet")
    assert code == 0, err
    assert parquet.read_table(tmp_path / "few.parquet")["label"].to_pylist() == [None, None]


def test_names_that_are_no_text(vitral, run: Path, photos: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="of the extra data")
    stray = tmp_path / "caf\udce9.jpg"
    stray.write_bytes(next(photos.rglob("*.jpg")).read_bytes())
    for suffix in (".npy", ".parquet"):
        code, _, err = vitral(
            "embed", run, stray, "--out", (tmp_path / "named").with_suffix(suffix)
        )
        assert code == 0, err
    assert r"caf\udce9.jpg" in parquet.read_table(tmp_path / "named.parquet")["path"][0].as_py()
    assert r"caf\udce9.jpg" in (tmp_path / "named.csv").read_text()


def test_places_that_are_not_written(vitral, run: Path, photos: Path, tmp_path: Path) -> None:
    code, _, err = vitral("embed", run, photos, "--out", tmp_path / "vectors.txt")
    assert code == 2 and ".npy or .parquet" in err
    code, _, err = vitral("embed", run, photos, "--out", tmp_path / "vectors")
    assert code == 3 and "neither a folder of tar shards" in err
    names = [path.relative_to(tmp_path).as_posix() for path in sorted(photos.rglob("*.jpg"))]
    table = tmp_path / "list.csv"
    table.write_text("path,label\n" + "".join(f"{name},a\n" for name in names))
    before = table.read_bytes()
    code, _, err = vitral("embed", run, table, "--out", tmp_path / "list.npy")
    assert code == 2 and "list.csv is there already" in err
    (tmp_path / "list.npy").touch()  # even then, it is what is read
    assert vitral("embed", run, table, "--out", tmp_path / "list.npy")[0] == 2
    (photos / "notes.csv").write_text("mine")
    assert vitral("embed", run, photos, "--out", photos / "notes.npy")[0] == 2
    assert table.read_bytes() == before and (photos / "notes.csv").read_text() == "mine"
    pytest.importorskip("pyarrow.parquet", reason="of the extra data")
    (photos / "mine.parquet").write_text("mine")
    assert vitral("embed", run, photos, "--out", photos / "mine.parquet")[0] == 2
    assert (photos / "mine.parquet").read_text() == "mine"


def test_without_pyarrow(vitral, run: Path, photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = vitral("embed", run, photos, "--out", tmp_path / "photos.parquet")
    assert code == 5 and "vitral[data]" in err and ".npy" in err
