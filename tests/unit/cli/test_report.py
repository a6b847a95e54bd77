"""vitral report: the page of a run again."""

import json

from vitral.cli import report  # noqa: F401 - the verb hangs itself on the command
from vitral.evaluation import evaluate_single_label, write_predictions


def test_report(vitral, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write_predictions(
        run / "predictions.csv", evaluate_single_label([[2.0, 0.0]], [0], ["가", "나"], ["1.jpg"])
    )
    (run / "recipe.json").write_text(json.dumps({"seed": 3}), encoding="utf-8")
    code, out, err = vitral("report", run)
    assert code == 0
    assert out == f"written: {run / 'report.html'}\n"
    assert err == (
        "vitral: The page has no pictures: the run does not say which images it was scored on.\n"
    )
    assert "Class by class" in (run / "report.html").read_text(encoding="utf-8")
    code, out, _ = vitral("report", run, "--lang", "ko", "--out", tmp_path / "ko.html")
    assert code == 0
    assert "클래스별 성능" in (tmp_path / "ko.html").read_text(encoding="utf-8")


def test_one_sentence_for_what_cannot_be(vitral, tmp_path):
    code, out, err = vitral("report", tmp_path / "none")
    assert (code, out) == (3, "")
    assert "is not a run folder" in err
    code, _, err = vitral("report", tmp_path, "--lang", "fr")
    assert (code, err) == (2, "vitral: --lang is en or ko, not 'fr'.\n")
