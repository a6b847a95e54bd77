"""Foreign images given on purpose, and a stock without labels, on the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitral.weights import artifact

Vitral = Callable[..., tuple[int, str, str]]


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Fifteen pictures of noise, one of them broken, in folders within folders."""
    random = np.random.default_rng(0)
    for i in range(15):
        path = tmp_path / "noise" / f"날{i % 2}" / f"<b>{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    return tmp_path / "noise"


def test_foreign_images_are_scored(vitral: Vitral, trained: Path, noise: Path) -> None:
    run = trained / "run"
    photos = trained / "photos"
    code, out, err = vitral("evaluate", run, photos, "--foreign", noise, "--json")
    assert code == 0, err
    score = json.loads(out)["foreign"]
    assert (score["images"], score["own"], score["foreign"]) == (str(noise), 6, 14)
    for name in ("distance", "probability"):
        each = score[name]
        assert 0 <= each["auroc"] <= 1 and 0 <= each["accepted"] <= 1
        assert each["accepted_interval"][0] <= each["accepted"] <= each["accepted_interval"][1]
    assert "14.png" in err
    called = json.loads(out)["called_foreign"]
    assert called["count"] == round(6 * (1 - score["distance"]["kept"]))
    code, out, _ = vitral("evaluate", run, photos, "--foreign", noise)
    assert code == 0
    assert "14 foreign images beside 6 own" in out and "by the largest probability" in out


def test_foreign_images_that_cannot_be(
    vitral: Vitral, trained: Path, tmp_path: Path, noise: Path
) -> None:
    run = trained / "run"
    photos = trained / "photos"
    empty = tmp_path / "empty"
    empty.mkdir()
    code, _, err = vitral("evaluate", run, photos, "--foreign", empty)
    assert code == 3 and "No images under" in err
    own = tmp_path / "own"
    own.mkdir()
    vitral("evaluate", run, photos, "--csv", tmp_path / "own.csv")
    keys = (tmp_path / "own.csv").read_text(encoding="utf-8").splitlines()[1:]
    for i, line in enumerate(keys):
        shutil.copyfile(photos / line.split(",")[0], own / f"{i}.jpg")
    code, _, err = vitral("evaluate", run, photos, "--foreign", own)
    assert code == 3 and "are among those that the model is scored on" in err
    plain = Path(shutil.copytree(run / "best", tmp_path / "plain"))
    (plain / artifact.FITTED).unlink()
    code, _, err = vitral("evaluate", plain, photos, "--foreign", noise)
    assert code == 4 and "vitral fit RUN DATA" in err
    code, _, err = vitral("evaluate", run, photos, "--foreign", noise, "--probe", "knn")
    assert code == 2 and "--foreign" in err


def test_drift(vitral: Vitral, trained: Path, noise: Path, tmp_path: Path) -> None:
    run = trained / "run"
    code, out, err = vitral("evaluate", run, noise, "--unlabelled", "--json")
    assert code == 0, err
    values = json.loads(out)
    assert (values["samples"], values["held_out"]) == (14, 6)
    assert set(values["shares"]) == {"foreign", "sure", "unsure"}
    assert sum(share["count"] for share in values["shares"].values()) == 14
    assert 0 <= values["p_shares"] <= 1 and values["sentence"]
    code, out, _ = vitral("evaluate", run, noise, "--unlabelled")
    assert code == 0 and values["sentence"] in out
    few = tmp_path / "few"
    few.mkdir()
    shutil.copyfile(min(noise.rglob("*.png")), few / "one.png")
    code, _, err = vitral("evaluate", run, few, "--unlabelled")
    assert code == 3 and "1 images tell nothing" in err
    code, _, err = vitral("evaluate", run, noise, "--unlabelled", "--csv", tmp_path / "a.csv")
    assert code == 2 and "--unlabelled" in err
