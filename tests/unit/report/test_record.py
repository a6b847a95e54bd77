"""Reading a run folder: whole, in parts, killed and resumed, damaged."""

import json

import pytest

from vitral.errors import DataError
from vitral.report import facts, write_report
from vitral.report.record import read_record
from vitral.report.translations import translations


def write(run, name, content):
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def test_an_empty_folder_is_no_run(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="is not a run folder"):
            read_record(folder)


def test_parts_may_be_missing(tmp_path):
    write(tmp_path, "recipe.json", {"seed": 3})
    found = read_record(tmp_path)
    assert found.recipe == {"seed": 3}
    assert (found.training, found.validations, found.predictions, found.card) == ([], [], (), {})
    assert found.command == ""
    assert found.name == tmp_path.name


def test_recipe_with_or_without_its_wrapping(tmp_path):
    write(tmp_path, "recipe.json", {"recipe": {"seed": 3}, "command": "vitral train x/"})
    card = {"made_by": {"environment": {"torch": "2.13.0"}, "recipe": {"seed": 4}}}
    write(tmp_path, "best/model.json", card)
    found = read_record(tmp_path)
    assert found.recipe == {"seed": 3}
    assert found.command == "vitral train x/"
    assert found.environment == {"torch": "2.13.0"}
    (tmp_path / "recipe.json").unlink()
    assert read_record(tmp_path).recipe == {"seed": 4}


def test_a_killed_and_resumed_log_counts_every_step_once(tmp_path):
    lines = [
        {"step": 1, "epoch": 0.1, "loss": 2.0, "lr": 0.1},
        {"step": 3, "epoch": 0.3, "loss": 1.5, "lr": 0.1},
        {"step": 2, "epoch": 0.2, "loss": 1.9, "lr": 0.1},
        {"step": 3, "epoch": 0.3, "loss": 1.4, "lr": 0.1},
        {"step": 3, "epoch": 0.3, "val_accuracy": 0.5, "val_interval": [0.4, 0.6]},
        {"step": 4, "epoch": 0.4, "loss": float("nan"), "lr": 0.1},
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n[1]\n{"step": 5, "lo'
    write(tmp_path, "metrics.jsonl", text)
    found = read_record(tmp_path)
    assert [(line["step"], line["loss"]) for line in found.training] == [
        (1, 2.0),
        (2, 1.9),
        (3, 1.4),
    ]
    assert [line["val_accuracy"] for line in found.validations] == [0.5]


def test_predictions_are_read(tmp_path):
    write(tmp_path, "predictions.csv", "path,label,predicted,score\n1.jpg,가,나,0.5\n")
    assert read_record(tmp_path).predictions[0].label == "가"


@pytest.mark.parametrize("name", ["recipe.json", "best/model.json"])
def test_a_damaged_part_is_named(tmp_path, name):
    write(tmp_path, name, '{"half":')
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        read_record(tmp_path)


def test_multi_labels_are_known_by_any_part(tmp_path):
    log = {"step": 1, "val_accuracy": 0.25, "val_score": 0.5, "val_interval": [0.4, 0.6]}
    table = "path,labels,predicted,score of a\n1.jpg,a,a,0.9\n"
    parts = {"metrics.jsonl": log, "best/model.json": {"labels": "several"}}
    for name, content in {**parts, "predictions.csv": table}.items():
        write(tmp_path / name[:4], name, content)
        found = read_record(tmp_path / name[:4])
        assert found.headline == "mean average precision"
        assert (found.multi_label is not None) == (name == "predictions.csv")
        assert found.single_label == ()
    write(tmp_path / "one", "metrics.jsonl", {**log, "val_score": 0.25})
    assert read_record(tmp_path / "one").headline == "accuracy"


def test_evaluation_json_counts_only_beside_its_own_predictions(tmp_path):
    write(tmp_path, "predictions.csv", "path,label,predicted,score\n1.jpg,가,나,0.5\n")
    told = {"samples": 1, "correct": 0, "calibration": {"threshold": 0.75}}
    write(tmp_path, "evaluation.json", told)
    found = read_record(tmp_path)
    assert found.summary == told
    assert found.calibration == {"threshold": 0.75}
    assert found.threshold == 0.75
    write(tmp_path, "best/model.json", {"calibration": {"threshold": 0.5}})
    assert read_record(tmp_path).threshold == 0.5  # the artifact's own
    write(tmp_path, "evaluation.json", told | {"correct": 1})
    assert read_record(tmp_path).summary == {}


def test_the_sheet_of_views_is_read(tmp_path):
    write(tmp_path, "recipe.json", {"seed": 3})
    assert read_record(tmp_path).views == b""
    (tmp_path / "views.jpg").write_bytes(b"\xff\xd8")
    assert read_record(tmp_path).views == b"\xff\xd8"


def test_a_score_that_is_no_accuracy_is_called_by_its_own_name(tmp_path):
    line = {"step": 1, "val_patch_accuracy": 0.25, "val_entropy": 1.0, "val_score": 0.25}
    line |= {"val_interval": [0.2, 0.3], "val_loss": 2.0}
    write(tmp_path, "metrics.jsonl", line)
    record = read_record(tmp_path)
    assert record.headline == "patch accuracy" and len(record.validations) == 1
    shown = facts.headline(record, (), translations("ko"))
    assert (shown.name, shown.score, shown.interval) == ("패치 정확도", 0.25, (0.2, 0.3))
    assert (shown.samples, shown.correct) == (None, None)
    metrics = {"patch_accuracy": 0.5, "interval": [0.4, 0.6], "samples": 8, "loss": 2.0}
    write(tmp_path, "best/model.json", {"metrics": metrics, "classes": []})
    shown = facts.headline(read_record(tmp_path), (), translations("en"))
    assert (shown.name, shown.score, shown.samples) == ("Patch accuracy", 0.5, 8)
    assert (shown.correct, shown.also) == (None, ())
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Patch accuracy" in text
    assert "Each class ranks" not in text and "images are named rightly" not in text
