"""Answers by a tree, against plain loops; thresholds on data whose probabilities are true."""

import json

import numpy as np
import pytest
from scipy.special import softmax

from vitral.evaluation.calibration import AIM, fit
from vitral.evaluation.class_tree import TreeNodes, evaluate_tree, fit_threshold
from vitral.specs import Calibration
from vitral.specs.tree import ClassTree

CLASSES = ("ash", "oak", "robin", "tabby", "wren")
TREE = ClassTree(
    parents={
        "robin": "bird",
        "wren": "bird",
        "bird": "animal",
        "tabby": "cat",
        "cat": "animal",
        "ash": "tree",
        "oak": "tree",
    }
)


def draw(samples, seed=0, within=1.2, between=4.0):
    """Logits that tell groups well and their classes badly; labels are drawn from their softmax."""
    random = np.random.default_rng(seed)
    group = np.array([0, 0, 1, 2, 1])
    logits = random.normal(0, between, (samples, 3))[:, group]
    logits = logits + random.normal(0, within, (samples, 5))
    chances = softmax(logits, axis=1).cumsum(axis=1)
    return logits, (random.random((samples, 1)) > chances).sum(axis=1).clip(0, 4)


def loop(chances, least, tree=TREE, classes=CLASSES):
    """The group of one image, by walking down the tree."""
    sums = {
        group: min(1.0, sum(chances[k] for k in tree.members(group, classes)))
        for group in tree.groups(classes)
    }
    at, answer = None, None
    while True:
        children = [g for g in sorted(sums) if tree.parents.get(g) == at and sums[g] > 0]
        if not children:
            return answer
        at = max(children, key=lambda g: sums[g])
        if sums[at] < least:
            return answer
        answer = at


@pytest.mark.parametrize("least", [0.3, 0.6, 0.95, 1.0])
def test_the_group_is_found_by_walking_down(least):
    logits, _ = draw(300)
    chances = softmax(logits, axis=1)
    nodes = TreeNodes.of(TREE, CLASSES)
    group, score = nodes.answers(chances, least)
    for i in range(300):
        expected = loop(chances[i], least)
        found = None if group[i] < 0 else nodes.groups[group[i]]
        assert found == expected
        if expected is not None:
            own = sum(chances[i][k] for k in TREE.members(expected, CLASSES))
            assert score[i] == pytest.approx(own)


def test_many_unlikely_classes_make_a_likely_group():
    chances = np.array([[0.0, 0.0, 0.3, 0.4, 0.3]])  # tabby leads, and it is a bird
    nodes = TreeNodes.of(TREE, CLASSES)
    group, score = nodes.answers(chances, 0.55)
    assert nodes.groups[group[0]] == "bird"
    assert score[0] == pytest.approx(0.6)
    group, _ = nodes.answers(chances, 0.8)
    assert nodes.groups[group[0]] == "animal"


def test_no_groups_no_answers():
    nodes = TreeNodes.of(ClassTree(), CLASSES)
    group, score = nodes.answers(np.full((3, 5), 0.2), 0.0)
    assert group.tolist() == [-1, -1, -1]
    assert score.tolist() == [0, 0, 0]


def test_answers_by_groups_are_as_often_right_as_promised():
    logits, labels = draw(4000, seed=1)
    calibration = fit(logits, labels)
    least = fit_threshold(logits, labels, CLASSES, TREE, calibration)
    assert 0.5 < least < 1
    tree = ClassTree(parents=TREE.parents, threshold=least)
    new, truth = draw(4000, seed=2)
    keys = [str(i) for i in range(4000)]
    evaluation = evaluate_tree(new, truth, keys, CLASSES, tree, calibration)
    assert evaluation.grouped > 200
    assert evaluation.grouped_right / evaluation.grouped > AIM - 0.02
    on_own = evaluate_tree(logits, labels, keys, CLASSES, tree, calibration)
    assert on_own.grouped_right / on_own.grouped >= AIM - 1e-3
    assert evaluation.samples == 4000
    assert evaluation.sure + evaluation.grouped <= 4000


def test_the_threshold_where_there_is_little_to_fit_it_on():
    logits, labels = draw(15)
    calibration = Calibration(temperature=1.0, threshold=1.0, target=0.9, samples=15)
    assert fit_threshold(logits, labels, CLASSES, TREE, calibration) == AIM
    logits, labels = draw(300)
    assert fit_threshold(logits, labels, CLASSES, ClassTree(), calibration) == AIM
    wrong = (labels + 2) % 5  # never right, whatever the threshold
    assert fit_threshold(10 * logits, wrong, CLASSES, TREE, calibration) >= AIM


def test_every_level_is_counted():
    logits, labels = draw(500, seed=3)
    chances = softmax(logits, axis=1)
    evaluation = evaluate_tree(logits, labels, [str(i) for i in range(500)], CLASSES, TREE, None)
    coarse = {"ash": "tree", "oak": "tree", "robin": "animal", "wren": "animal", "tabby": "animal"}
    fine = {"ash": "tree", "oak": "tree", "robin": "bird", "wren": "bird", "tabby": "cat"}
    for level, names in zip(evaluation.levels, (coarse, fine), strict=True):
        right = 0
        for row, label in zip(chances, labels, strict=True):
            sums = {}
            for name, chance in zip(CLASSES, row, strict=True):
                sums[names[name]] = sums.get(names[name], 0) + chance
            right += max(sums, key=sums.get) == names[CLASSES[label]]
        assert level.correct == right
        assert level.accuracy == right / 500
        assert set(level.groups) == set(names.values())
    assert evaluation.threshold is None
    assert evaluation.grouped == 0
    assert json.dumps(evaluation.to_dict(), allow_nan=False)
    assert len(list(evaluation.lines())) == 2


def test_images_that_it_was_fitted_on_are_answered_by_the_others():
    logits, labels = draw(600, seed=4)
    calibration = fit(logits, labels)
    least = fit_threshold(logits, labels, CLASSES, TREE, calibration)
    tree = ClassTree(parents=TREE.parents, threshold=least)
    keys = [f"{i:04}" for i in range(600)]
    crossed = evaluate_tree(logits, labels, keys, CLASSES, tree, calibration, cross_fit=True)
    assert crossed.cross_fitted
    order = np.random.default_rng(0).permutation(600)
    again = evaluate_tree(
        logits[order],
        labels[order],
        [keys[i] for i in order],
        CLASSES,
        tree,
        calibration,
        cross_fit=True,
    )
    assert again == crossed
    assert "cross-fitted" in list(crossed.lines())[-1]
