import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file

from multi_label import multi_label_artifact

Vitral = Callable[..., tuple[int, str, str]]


def test_predict_and_evaluate(vitral: Vitral, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained / "run", tmp_path / "run")
    photos = trained / "photos"
    picture = next(photos.rglob("*.jpg"))

    code, out, _ = vitral("predict", run, photos, picture, "--top", "2")
    assert code == 0
    assert str(picture) in out
    assert len(out.splitlines()) == 37
    answers = tmp_path / "answers.csv"
    code, out, _ = vitral("predict", run, picture, "--json", "--csv", answers)
    result = json.loads(out)["results"][0]
    assert set(result) == {"path", "label", "score", "top", "unsure", "foreign", "foreign_score"}
    assert result["label"] == result["top"][0]["label"]
    assert (
        answers.read_text().splitlines()[0] == "path,label,score,unsure,foreign,foreign_score,error"
    )
    (row,) = csv.DictReader(answers.read_text(encoding="utf-8").splitlines())
    assert row["path"] == str(picture)
    assert row["unsure"] == str(result["unsure"]).lower()

    code, out, _ = vitral("evaluate", run, photos)
    assert code == 0
    assert "95 %" in out
    assert "val images" in out
    code, out, _ = vitral("evaluate", run, photos, "--json", "--csv", tmp_path / "rows.csv")
    values = json.loads(out)
    assert {"accuracy", "interval", "samples"} <= set(values)
    assert (values["unknown"], values["calibration"]["cross_fitted"]) == ({}, True)
    assert "compare" not in values
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == values["samples"] + 1

    some = tmp_path / "some"
    shutil.copytree(photos, some)
    bad = next(some.rglob("*.jpg"))
    bad.write_bytes(b"")
    page = tmp_path / "page.html"
    code, out, err = vitral("evaluate", run, some, "--json", "--report", page)
    assert code == 0, err
    assert json.loads(out)["unreadable"] == [bad.relative_to(some).as_posix()]
    assert bad.relative_to(some).as_posix() in page.read_text(encoding="utf-8")

    sure_of_nothing(run)
    code, out, _ = vitral("predict", run, photos)
    assert all("unsure:  " in line for line in out.splitlines())
    compare_and_leave_out(vitral, photos, run, tmp_path)


def sure_of_nothing(run: Path) -> None:
    card = run / "best" / "model.json"
    values = json.loads(card.read_text(encoding="utf-8"))
    values["calibration"]["threshold"] = 1.0
    card.write_text(json.dumps(values), encoding="utf-8")


def compare_and_leave_out(vitral: Vitral, photos: Path, run: Path, tmp_path: Path) -> None:
    """With itself under other names and in another order, on data with a class of its own."""
    other = tmp_path / "other"
    shutil.copytree(run / "best", other)
    card, weights = other / "model.json", other / "model.safetensors"
    values = json.loads(card.read_text(encoding="utf-8"))
    values["classes"] = values["classes"][::-1]
    values["made_by"] = {}
    card.write_text(json.dumps(values), encoding="utf-8")
    tensors = load_file(weights)
    for name in ("head.weight", "head.bias"):
        tensors[name] = tensors[name].flip(0).contiguous()
    save_file(tensors, weights)
    code, out, err = vitral("evaluate", run, photos, "--compare", other)
    assert code == 0, err
    assert "verdict    not distinguishable" in out and "p = 1 (McNemar, exact)" in out
    code, out, _ = vitral("evaluate", run, photos, "--compare", other, "--json")
    found = json.loads(out)["compare"]
    assert found["with"] == str(other)
    assert (found["only_first"], found["only_second"], found["p"]) == (0, 0, 1)
    assert found["accuracy"] == found["other_accuracy"] == json.loads(out)["accuracy"]

    stranger = tmp_path / "strange"
    shutil.copytree(photos, stranger)
    kind = sorted(child for child in stranger.iterdir())[0]
    kind.rename(stranger / "stranger")
    code, _, err = vitral("evaluate", run, stranger)
    assert code == 3 and "'stranger' that the model does not know" in err
    assert "--allow-unknown" in err
    page = tmp_path / "page.html"
    words = ("--report", page, "--lang", "ko")
    code, out, err = vitral("evaluate", run, stranger, "--allow-unknown", *words)
    assert code == 0, err
    assert "12 images of classes it does not know: stranger (12)" in out
    assert '<html lang="ko"' in page.read_text(encoding="utf-8")
    code, _, err = vitral("evaluate", run, stranger, "--report", page, "--lang", "fr")
    assert code == 2 and "ko" in err
    code, out, err = vitral("evaluate", run, photos, "--probe", "knn", "--json")
    assert code == 0, err
    assert json.loads(out)["probe"] == "knn"
    table = tmp_path / "table.csv"
    for more in (("--compare", other), ("--csv", table), ("--allow-unknown",), ("--report", page)):
        code, _, err = vitral("evaluate", run, photos, "--probe", "knn", *more)
        assert code == 2 and "alone; leave" in err
    notes = stranger / "stranger" / "notes.csv"
    notes.write_text("mine", encoding="utf-8")
    for place, reason in ((notes, "is part of"), (page, "does not end in .csv")):
        before = place.read_bytes()
        code, _, err = vitral("evaluate", run, stranger, "--allow-unknown", "--csv", place)
        assert code == 2 and reason in err
        assert place.read_bytes() == before
    notes.unlink()
    code, _, err = vitral("evaluate", run, photos, "--lang", "ko")
    assert code == 2 and "--report" in err
    code, _, err = vitral("evaluate", run, photos, "--probe", "nn")
    assert code == 2 and "one of fewshot, knn, linear, not 'nn'" in err
    code, out, _ = vitral(
        "evaluate", run, stranger, "--allow-unknown", "--compare", other, "--json"
    )
    assert json.loads(out)["unknown"] == {"stranger": 12}
    assert json.loads(out)["samples"] == json.loads(out)["compare"]["samples"] == 24


def test_multi_labels(vitral: Vitral, photos: Path, tmp_path: Path) -> None:
    run = multi_label_artifact(photos, tmp_path / "multi_label")
    pictures = sorted(photos.rglob("*.jpg"))
    code, out, err = vitral("predict", run, photos, "--json", "--csv", tmp_path / "answers.csv")
    assert code == 0, err
    results = json.loads(out)["results"]
    names = {"path", "label", "score", "top", "labels", "unsure", "foreign", "foreign_score"}
    assert all(set(result) == names for result in results)
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ["path", "labels", "label", "score", "unsure", "foreign", "foreign_score", "error"]
    assert list(rows[0]) == columns
    assert [row["labels"] for row in rows] == ["|".join(result["labels"]) for result in results]
    assert {len(result["labels"]) for result in results} > {0}

    code, out, _ = vitral("predict", run, photos, "--top", "2")
    for line, result in zip(out.splitlines(), results, strict=True):
        named = ", ".join(result["labels"]) or "none"
        assert line.startswith(f"{result['path']}  {named}:  {result['label']} ")

    # what it said of each, as the truth
    listed = tmp_path / "list.csv"
    listed.write_text(
        "path,labels\n" + "\n".join(f"{r['path']},{'|'.join(r['labels'])}" for r in results),
        encoding="utf-8",
    )
    code, out, err = vitral("evaluate", run, listed)
    assert code == 0, err
    assert "mean average precision  100.00 %" in out
    assert f"{len(pictures)} of {len(pictures)}" in out
    code, out, _ = vitral("evaluate", run, listed, "--json", "--csv", tmp_path / "rows.csv")
    values = json.loads(out)
    assert values["mean_average_precision"] == 1
    assert {"interval", "samples", "loss", "accuracy", "per_class", "split"} <= set(values)
    header = (tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "path,labels,predicted,score of a,score of b,score of c,score of d"

    code, _, err = vitral("evaluate", run, listed, "--compare", run)
    assert code == 2 and "one names several" in err
    code, out, _ = vitral(
        "predict", run, listed, pictures[0], "--json", "--csv", tmp_path / "r.csv"
    )
    assert json.loads(out)["results"][0]["error"]["code"] == "unreadable"
    row = (tmp_path / "r.csv").read_text(encoding="utf-8").splitlines()[1]
    assert row.startswith(f"{listed},,,,") and "not an image" in row
