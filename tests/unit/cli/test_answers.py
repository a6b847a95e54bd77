"""Sets, groups and similar images on the command line and in Python, and what cannot be asked."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vitral as package
from drawn import draw_folder, hashes
from multi_label import multi_label_artifact
from vitral.answers import AnswerRequest, Computed, answers_of
from vitral.evaluation import neighbours
from vitral.specs import Calibration
from vitral.specs.tree import ClassTree
from vitral.weights import artifact


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a trained run that may be fitted anew."""
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


@pytest.fixture
def fresh(tmp_path):
    """Images that the training did not see, forty of each class."""
    return draw_folder(tmp_path / "fresh", kinds=3, each=40, first=2000)


def test_sets_of_the_training_hold_and_say_what_they_rest_on(vitral, trained, tmp_path):
    pictures = trained / "photos"
    table = tmp_path / "answers.csv"
    words = ("predict", trained / "run", pictures, "--sets", "0.6", "--csv", table)
    code, out, err = vitral(*words, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["sets"]["level"] == 0.6
    assert found["sets"]["guarantee"] in err
    classes = package.load(trained / "run").classes
    for result in found["results"]:
        assert result["label"] in result["set"]
        assert set(result["set"]) <= set(classes)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["set"].split("|") for row in rows] == [r["set"] for r in found["results"]]
    assert "group" not in rows[0] and "similar" not in rows[0]
    code, again, _ = vitral(*words, "--json")
    assert json.loads(again) == found


def test_too_few_images_are_said_and_every_class_is_in_the_set(vitral, trained):
    picture = next((trained / "photos").rglob("*.jpg"))
    code, out, err = vitral("predict", trained / "run", picture, "--sets", "0.99")
    assert code == 0
    assert "99 % needs at least 99 calibration images" in err
    classes = package.load(trained / "run").classes
    assert len(out.partition("{")[2].partition("}")[0].split(", ")) == len(classes)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sets", "95"], "95 % is 0.95"),
        (["--sets", "1"], "above 0 and below 1"),
        (["--sets", "0.9", "--sets-by", "aps"], "one of adaptive, least-ambiguous, not 'aps'"),
        (["--similar-to", "photos"], "--similar 3"),
    ],
)
def test_what_cannot_be_asked(vitral, trained, words, said):
    picture = next((trained / "photos").rglob("*.jpg"))
    code, _, err = vitral("predict", trained / "run", picture, *words)
    assert code == 2
    assert said in " ".join(err.split())


def test_an_artifact_without_them_says_what_makes_them(vitral, trained, run, fresh):
    for name in ("best", "last"):
        (run / name / artifact.FITTED).unlink()
    picture = next(fresh.rglob("*.jpg"))
    code, _, err = vitral("predict", run, picture, "--sets", "0.9")
    assert code == 4
    assert "vitral fit RUN DATA" in err
    before = hashes(fresh)
    code, out, _ = vitral("fit", run, fresh)
    assert code == 0
    assert "sets      at least 95 % of the images of each class" in out
    assert "from 120 images that the training did not use" in out
    assert hashes(fresh) == before
    code, out, _ = vitral("predict", run, picture, "--sets", "0.9")
    assert code == 0
    other = draw_folder(fresh.parent / "other", kinds=3, each=20, first=6000)
    code, out, _ = vitral("evaluate", run, other, "--sets", "0.9", "--json")
    assert code == 0
    sets = json.loads(out)["sets"]
    assert sets["fresh"] and not sets["cross_fitted"]
    assert sets["samples"] == 60
    assert sets["interval"][1] >= 0.9  # what was promised is not ruled out
    assert [each["name"] for each in sets["per_class"]] == list(package.load(run).classes)
    code, _, err = vitral("evaluate", run, fresh, "--sets", "0.9")
    assert code == 0
    assert "only other images tell what they are worth" in " ".join(err.split())
    own = package.load(run).evaluate(trained / "photos", sets=0.9)
    assert own.sets is not None and not own.sets.cross_fitted  # fitted to others than these


def test_the_report_of_a_run_counts_its_sets(trained):
    values = json.loads((trained / "run" / "evaluation.json").read_text())
    assert values["sets"]["level"] == 0.95
    assert values["sets"]["cross_fitted"]
    assert "Answer sets with a guarantee" in (trained / "run" / "report.html").read_text()


def test_sets_are_not_for_several_labels(vitral, photos, tmp_path):
    run = multi_label_artifact(photos, tmp_path / "several")
    code, _, err = vitral("predict", run, photos, "--sets", "0.9")
    assert code == 2
    assert "any number of labels" in " ".join(err.split())


def test_the_nearest_training_images_are_named(vitral, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path / "cache"))
    picture = next((trained / "photos").rglob("*.jpg"))
    code, out, _ = vitral("predict", trained / "run", picture, "--similar", "2", "--json")
    assert code == 0
    similar = json.loads(out)["results"][0]["similar"]
    assert len(similar) == 2
    assert all(Path(each["path"]).is_file() for each in similar)
    assert all(Path(each["path"]).parent.name == each["label"] for each in similar)
    clf = package.load(trained / "run")
    answer = clf.predict(picture, similar=2)
    assert [each.path for each in answer.similar] == [each["path"] for each in similar]
    index = clf.neighbours()
    assert clf.predict(picture, similar=2, similar_to=index).similar == answer.similar
    pool = draw_folder(tmp_path / "pool", kinds=1, each=3, first=5000)
    code, out, _ = vitral(
        "predict", trained / "run", picture, "--similar", "1", "--similar-to", pool
    )
    assert code == 0
    assert str(pool) in out


def test_training_images_that_are_gone_are_said(vitral, trained, run, tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path / "cache"))
    photos = shutil.copytree(trained / "photos", tmp_path / "photos")
    card = run / "best" / "model.json"
    values = json.loads(card.read_text())
    values["made_by"]["recipe"]["data"]["source"] = str(photos)
    card.write_text(json.dumps(values))
    picture = next((trained / "photos").rglob("*.jpg"))
    assert vitral("predict", run, picture, "--similar", "1")[0] == 0
    shutil.rmtree(photos)
    code, out, err = vitral("predict", run, picture, "--similar", "1")
    assert code == 0 and str(photos) in out
    assert "1 of the similar images are not where they were" in err
    shutil.rmtree(tmp_path / "cache")
    neighbours._read.cache_clear()
    code, _, err = vitral("predict", run, picture, "--similar", "1")
    assert code == 3
    assert "--similar-to PHOTOS/" in err


def test_a_group_is_answered_where_the_class_is_unsure(trained):
    clf = package.load(trained / "run")
    first, second, third = clf.classes
    card = replace(
        clf.card,
        calibration=Calibration(temperature=1.0, threshold=0.8, target=0.95, samples=50),
        tree=ClassTree(parents={first: "pair", second: "pair"}, threshold=0.9),
    )
    chances = np.array([[0.5, 0.45, 0.05], [0.9, 0.05, 0.05], [0.4, 0.2, 0.4]])
    logits = torch.from_numpy(np.log(chances)).float()
    answers = answers_of(card, Computed(logits=logits), ["a", "b", "c"], AnswerRequest())
    assert [answer.group for answer in answers] == ["pair", None, None]
    assert answers[0].group_score == pytest.approx(0.95)
    assert [answer.unsure for answer in answers] == [True, False, True]
    assert answers[0].to_dict()["group"] == "pair"
    assert third not in answers[0].top[0]
