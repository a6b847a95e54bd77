import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from vitral import catalog

Vitral = Callable[..., tuple[int, str, str]]
VERBS = ("demo", "train", "evaluate", "predict", "explain", "models", "doctor")


def test_help_names_every_verb_and_each_verb_has_help(vitral: Vitral) -> None:
    code, out, _ = vitral("--help")
    assert code == 0
    for verb in VERBS:
        assert verb in out
        code, text, _ = vitral(verb, "--help")
        assert code == 0
        assert len(text) > 100


def test_version_and_no_arguments(vitral: Vitral) -> None:
    assert vitral("--version")[1].startswith("vitral ")
    assert "Usage" in vitral()[1]


def test_models(vitral: Vitral) -> None:
    code, out, _ = vitral("models", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert set(rows) == set(catalog.names())
    assert rows["B/16"]["parameters"] == 86_567_656
    assert rows["B/16"]["size"] == [224, 224]
    table = vitral("models")[1]
    assert "B/16" in table
    assert "86.57" in table


def test_doctor(vitral: Vitral) -> None:
    code, out, _ = vitral("doctor")
    assert code == 0
    assert out.strip().endswith("ready")
    assert json.loads(vitral("doctor", "--json")[1])["ready"]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "vitral", "evaluate", str(tmp_path / "none"), "digits"]
    plain = subprocess.run(words, capture_output=True, text=True, check=False)
    assert plain.returncode == 4
    assert "Traceback" not in plain.stderr
    debug = subprocess.run([*words, "--debug"], capture_output=True, text=True, check=False)
    assert "Traceback" in debug.stderr


def test_train_predict_evaluate_explain(vitral: Vitral, photos: Path, tmp_path: Path) -> None:
    run, picture = tmp_path / "run", next(photos.rglob("*.jpg"))
    options = ("--model", "mu/8", "--size", "32x32", "--epochs", "1", "--batch", "8", "--seed", "1")
    code, out, err = vitral("train", photos, *options, "--out", run, "--set", "data.workers=0")
    assert code == 0, err
    assert "accuracy" in out
    assert f"vitral predict {run}" in out

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
