"""Answer sets and groups of classes on the page: numbers, words, and names that bite."""

import json
import re

import numpy as np
import pytest

from vitral.evaluation import evaluate, write_evaluation, write_predictions
from vitral.evaluation.answer_sets import SetCalibration
from vitral.report import write_report
from vitral.specs import Calibration
from vitral.specs.tree import ClassTree

EVIL = '<script>alert("1")</script>'
NAMES = ["R&D 'x'", EVIL, "골프공", "wren"]
TREE = ClassTree(parents={"wren": "<b>bird</b>", "골프공": "공"}, threshold=0.9)


def text_of(path):
    html = path.read_text(encoding="utf-8")
    body = re.sub(r"(?s)<(script|style).*?</\1>", " ", html)
    assert EVIL not in html
    assert "<b>bird" not in html
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def run_of(folder, images, *, fresh=True, level=0.8):
    random = np.random.default_rng(0)
    labels = np.arange(images + 90) % 4
    logits = random.normal(0, 1.5, (len(labels), 4))
    logits[np.arange(len(labels)), labels] += 2
    found = SetCalibration.of(logits[90:], labels[90:], fresh=fresh, of_training=not fresh)
    evaluation = evaluate(
        "single_label",
        logits[:90],
        labels[:90],
        NAMES,
        [f"{i}.jpg" for i in range(90)],
        calibration=Calibration(temperature=1.0, threshold=0.7, target=0.95, samples=90),
        cross_fit=not fresh,
        tree=TREE,
        rule=found.rule(level, "adaptive"),
    )
    folder.mkdir(exist_ok=True)
    write_predictions(folder / "predictions.csv", evaluation)
    write_evaluation(folder / "evaluation.json", evaluation)
    return evaluation


def shown(share):
    return f"{100 * share:.1f} %"


def test_the_numbers_are_those_of_the_evaluation(tmp_path):
    evaluation = run_of(tmp_path / "run", 200)
    text = text_of(write_report(tmp_path / "run"))
    sets = evaluation.sets
    assert "at least 80 % of new images" in text
    assert "for each class by itself" in text
    low, high = sets.interval
    assert f"class in its set {shown(sets.coverage)} {shown(low)} to {shown(high)}" in text
    assert f"classes in a set {sets.mean_size:.2f}" in text
    for each in sets.per_class:
        assert f"{each.samples} {shown(each.coverage)}" in text
    tree = evaluation.tree
    assert f"a class {tree.sure} {shown(tree.sure_right / tree.sure)}" in text
    assert f"neither: unsure {90 - tree.sure - tree.grouped}" in text
    assert f"{shown(tree.levels[0].accuracy)}" in text
    korean = text_of(write_report(tmp_path / "run", lang="ko"))
    assert "보장이 있는 답의 집합" in korean
    assert "클래스 묶음별 성능" in korean


@pytest.mark.parametrize(
    ("images", "fresh", "level", "said"),
    [
        (3, True, 0.8, "The 3 calibration images are too few for 80 %"),
        (20, True, 0.9, "for all images together, not for each class"),
        (200, False, 0.8, "so the promise holds nearly"),
        (200, False, 0.8, "each fifth by the other four"),
        (200, True, 0.975, "at least 97.5 % of new images"),
    ],
)
def test_what_the_promise_rests_on_is_said(tmp_path, images, fresh, level, said):
    run_of(tmp_path / "run", images, fresh=fresh, level=level)
    assert said in text_of(write_report(tmp_path / "run"))


def test_what_another_version_wrote_is_left_out(tmp_path):
    run_of(tmp_path / "run", 200)
    path = tmp_path / "run" / "evaluation.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    for broken in ({}, None, [], {"level": 0.8}, "x"):
        path.write_text(json.dumps(values | {"sets": broken, "tree": broken}), encoding="utf-8")
        text = text_of(write_report(tmp_path / "run"))
        assert "guarantee" not in text
        assert "By groups" not in text
