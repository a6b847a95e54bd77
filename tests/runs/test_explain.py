"""vitral explain: one image, many, none; and each mistake in one sentence."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vitral.cli import explain
from vitral.cli.printing import progress
from vitral.explanation import save

Vitral = Callable[..., tuple[int, str, str]]


def test_one_image_gets_a_folder(vitral: Vitral, trained: Path, tmp_path: Path) -> None:
    picture = next((trained / "photos").rglob("*.jpg"))
    code, out, err = vitral("explain", trained / "run", picture, "--out", tmp_path / "one")
    assert code == 0, err
    assert {path.name for path in (tmp_path / "one").iterdir()} == set(save.file_names())
    assert "occlusion for" in out and "than random order" in out
    assert out.splitlines()[-1] == f"written: {tmp_path / 'one'}"
    options = ("--query", "2,3", "--layer", "1", "--head", "2", "--json")
    code, out, _ = vitral(
        "explain", trained / "run", picture, "--out", tmp_path / "e.svg", *options
    )
    result = json.loads(out)["results"][0]
    word = ("--method", "relevance", "--out", tmp_path / "r.png", "--json")
    quick = json.loads(vitral("explain", trained / "run", picture, *word)[1])["results"][0]
    assert quick["method"] == "relevance"
    assert result["method"] == "attention"
    assert {"path", "top", "target", "faithfulness", "written"} <= set(result)
    assert [path.name for path in tmp_path.glob("*.svg")] == ["e.svg"]


def test_many_images_get_a_folder_each_and_a_table(
    vitral: Vitral, trained: Path, tmp_path: Path
) -> None:
    pictures = sorted((trained / "photos").rglob("*.jpg"))
    inputs = tmp_path / "inputs"
    (inputs / "again").mkdir(parents=True)
    for picture in pictures[:3]:
        shutil.copy(picture, inputs / f"{picture.parent.name}-{picture.name}")
    shutil.copy(pictures[0], inputs / "again" / f"{pictures[0].parent.name}-{pictures[0].name}")
    shutil.copy(pictures[0], inputs / "explanations.csv.jpg")
    (inputs / "broken.jpg").write_text("no image")
    code, out, err = vitral("explain", trained / "run", inputs, "--out", tmp_path / "many")
    assert code == 0, err
    assert "broken.jpg cannot be read" in err
    assert "random order on" in out
    with (tmp_path / "many" / "explanations.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == explain.COLUMNS
    assert len(rows) == len({row["folder"] for row in rows}) == 5
    for row in rows:
        assert {p.name for p in Path(row["folder"]).iterdir()} == {"overlay.png", "overview.png"}
        assert np.isfinite([float(row["deletion score"]), float(row["insertion score"])]).all()
    code, out, _ = vitral("explain", trained / "run", inputs, "--out", tmp_path / "many", "--json")
    results = json.loads(out)["results"]
    assert sum("error" in result for result in results) == 1
    assert len(results) == 6


def test_without_images_the_model_is_explained(
    vitral: Vitral, trained: Path, tmp_path: Path
) -> None:
    code, out, err = vitral("explain", trained / "run", "--out", tmp_path / "own")
    assert code == 0, err
    written = [Path(line.removeprefix("written: ")) for line in out.splitlines()]
    assert {"filters.png", "positions.png", "attention_distance.png"} <= {p.name for p in written}
    assert all(path.exists() for path in written)
    code, out, err = vitral(
        "explain", trained / "run", "--data", trained / "photos", "--out", tmp_path / "o2", "--json"
    )
    assert code == 0, err
    assert len(json.loads(out)["written"]) == len(written)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--layer", "9"], 2, "Layers are 1 to 1"),
        (["--head", "0"], 2, "Heads are 1 to 2"),
        (["--query", "5,1"], 2, "rows are 1 to 4 and columns 1 to 4"),
        (["--query", "one"], 2, "ROW,COLUMN like 3,5, not 'one'"),
        (["--class", "z"], 2, "its classes are arrow, crescent"),
        (["--method", "cam"], 2, "occlusion, gradient, relevance, rollout, attention"),
        (["--data", "digits"], 2, "leave it or the images out"),
        (["--out", "x.jpg"], 2, ".png or .svg"),
    ],
)
def test_what_cannot_be_asked(
    vitral: Vitral, trained: Path, tmp_path: Path, monkeypatch, options, code, sentence
) -> None:
    monkeypatch.chdir(tmp_path)
    picture = next((trained / "photos").rglob("*.jpg"))
    found, out, err = vitral("explain", trained / "run", picture, *options)
    assert (found, out) == (code, "")
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_together(vitral: Vitral, trained: Path, tmp_path: Path) -> None:
    photos, run = trained / "photos", trained / "run"
    picture = next(photos.rglob("*.jpg"))
    for words, code, sentence in (
        ((photos, "--out", tmp_path / "a.png"), 2, "one picture of one image; name a folder"),
        (("--layer", "1", "--out", tmp_path / "a"), 2, "needs an image"),
        ((tmp_path / "none.jpg", "--out", tmp_path / "a"), 3, "none.jpg"),
        (("--data", tmp_path / "none", "--out", tmp_path / "a"), 3, "none"),
        ((picture, "--out", picture), 2, "one of the images"),
    ):
        found, _, err = vitral("explain", run, *words)
        assert found == code, err
        assert sentence in err
    own = tmp_path / "overlay.png"
    shutil.copy(picture, own)
    before = own.read_bytes()
    found, _, err = vitral("explain", run, own, "--out", tmp_path)
    assert (found, own.read_bytes()) == (2, before)
    assert "one of the images" in err
    broken = tmp_path / "broken.jpg"
    broken.write_text("no image")
    again = shutil.copyfile(broken, tmp_path / "again.jpg")
    found, _, err = vitral("explain", run, broken, again, broken, "--out", tmp_path / "b")
    assert found == 3 and "None of the 2 files" in err


def test_a_terminal_sees_that_it_goes_on(
    vitral: Vitral, trained: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    with progress("explaining") as tick:
        tick(3, 5)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # which is no terminal
    with progress("explaining") as tick:
        tick(3, 5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("explaining") as tick:
        tick(3, 5)
    assert "3/5" in capsys.readouterr().err
    picture = next((trained / "photos").rglob("*.jpg"))
    word = ("--method", "relevance", "--out", tmp_path / "one.png")
    code, _, err = vitral("explain", trained / "run", picture, *word)
    assert code == 0
    assert "explaining" in err and "0:00:0" in err
