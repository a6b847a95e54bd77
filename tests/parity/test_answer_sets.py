"""Answer sets beside those of crepes: the same, of all classes together and class by class."""

import numpy as np
import pytest
from scipy.special import softmax

from vitral.evaluation.answer_sets import METHODS, SetCalibration, scores

crepes = pytest.importorskip("crepes")
extras = pytest.importorskip("crepes.extras")

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)


def draw(samples, count=6, seed=0):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (samples, count))
    chances = softmax(0.7 * logits, axis=1).cumsum(axis=1)
    return logits, (random.random((samples, 1)) > chances).sum(axis=1).clip(0, count - 1)


def test_the_least_ambiguous_score_is_its_hinge():
    logits, labels = draw(200)
    found = SetCalibration.of(logits, labels, fresh=True)
    hinge = extras.hinge(softmax(logits, axis=1), np.arange(6), labels)
    np.testing.assert_allclose(found.least_ambiguous, hinge, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("images", [12, 80, 500])
def test_one_threshold_for_all_classes_makes_the_same_sets(method, images):
    logits, labels = draw(images, seed=images)
    new, _ = draw(300, seed=1)
    found = SetCalibration.of(logits, labels, fresh=True)
    own = found.adaptive if method == "adaptive" else found.least_ambiguous
    theirs = crepes.ConformalClassifier().fit(own)
    compared = 0
    for level in LEVELS:
        rule = found.rule(level, method)
        if rule.own.any():
            continue
        expected = theirs.predict_set(scores(new, method), confidence=level, smoothing=False)
        expected[np.arange(300), new.argmax(axis=1)] = 1  # ours always hold the best class
        np.testing.assert_array_equal(rule.members(new), expected.astype(bool))
        compared += 1
    assert compared


@pytest.mark.parametrize("method", METHODS)
def test_a_threshold_for_each_class_makes_the_same_sets(method):
    logits, labels = draw(900, seed=5)
    new, _ = draw(300, seed=6)
    found = SetCalibration.of(logits, labels, fresh=True)
    own = found.adaptive if method == "adaptive" else found.least_ambiguous
    theirs = crepes.ConformalClassifier().fit(own, bins=labels)
    for level in (0.5, 0.8, 0.9):
        rule = found.rule(level, method)
        assert rule.own.all()
        inside = rule.members(new)
        each = scores(new, method)
        for k in range(6):
            p = theirs.predict_p(
                each[:, [k]], bins=np.full(300, k), all_classes=True, smoothing=False
            )
            expected = (p[:, 0] > 1 - level + 1e-12) | (new.argmax(axis=1) == k)
            np.testing.assert_array_equal(inside[:, k], expected)
