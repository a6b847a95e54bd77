import json
from collections.abc import Callable
from pathlib import Path

Vitral = Callable[..., tuple[int, str, str]]


def test_predict_evaluate_explain(vitral: Vitral, photos: Path, tmp_path: Path) -> None:
    run, picture = tmp_path / "run", next(photos.rglob("*.jpg"))
    options = ("--model", "mu/8", "--size", "32x32", "--epochs", "1", "--batch", "8", "--seed", "1")
    code, _, err = vitral("train", photos, *options, "--out", run, "--set", "data.workers=0")
    assert code == 0, err

    code, out, _ = vitral("predict", run, photos, picture, "--top", "2")
    assert code == 0
    assert str(picture) in out
    assert len(out.splitlines()) == 37
    answers = tmp_path / "answers.csv"
    code, out, _ = vitral("predict", run, picture, "--json", "--csv", answers)
    result = json.loads(out)["results"][0]
    assert set(result) == {"path", "label", "score", "top"}
    assert result["label"] == result["top"][0]["label"]
    assert answers.read_text().splitlines()[1].startswith(str(picture))

    code, out, _ = vitral("evaluate", run, photos)
    assert code == 0
    assert "95 %" in out
    assert "val images" in out
    code, out, _ = vitral("evaluate", run, photos, "--json", "--csv", tmp_path / "rows.csv")
    values = json.loads(out)
    assert {"accuracy", "interval", "samples"} <= set(values)
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == values["samples"] + 1

    code, out, _ = vitral("explain", run, picture, "--out", tmp_path / "looked")
    assert code == 0
    assert {p.name for p in (tmp_path / "looked").iterdir()} == {
        "explanation.png",
        "explanation.svg",
        "overlay.png",
    }
