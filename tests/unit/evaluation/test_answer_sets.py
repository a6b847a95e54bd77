"""Answer sets: formulas written out, and coverage over many draws within exact binomial bounds."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binom

from vitral.errors import UsageError, WeightsError
from vitral.evaluation.answer_sets import (
    METHODS,
    OWN_MISSES,
    SetCalibration,
    evaluate_sets,
    least_images,
    quantile,
    rank,
    scores,
)


def draw(random, samples, count=5, spread=2.0, skill=1.0):
    """Logits, and labels that their softmax tells only in part: the network is not calibrated."""
    logits = random.normal(0, spread, (samples, count))
    chances = softmax(skill * logits, axis=1).cumsum(axis=1)
    labels = (random.random((samples, 1)) > chances).sum(axis=1).clip(0, count - 1)
    return logits, labels


def mass_above(logits, k):
    """The adaptive score of class k for one image, by a plain loop."""
    chances = softmax(logits)
    order = sorted(range(len(chances)), key=lambda i: (-logits[i], i))
    place = order.index(k)
    return sum(chances[i] for i in order[:place]) + 0.01 * max(0, place + 1 - 5)


def test_the_scores_are_their_formulas():
    logits = np.random.default_rng(0).normal(0, 3, (40, 9))
    logits[0, :4] = 1.5  # ties
    logits[1] *= 300
    expected = [[mass_above(row, k) for k in range(9)] for row in logits]
    np.testing.assert_allclose(scores(logits, "adaptive"), expected, atol=1e-12)
    np.testing.assert_allclose(
        scores(logits, "least-ambiguous"), 1 - softmax(logits, axis=1), atol=1e-12
    )
    assert (scores(logits, "adaptive").min(axis=1) == 0).all()


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95, 0.99, 0.7, 0.29])
def test_the_quantile_counts_exactly(level):
    exact = Fraction(str(level))
    for n in range(300):
        place = math.ceil((n + 1) * exact)
        assert rank(n, level) == place
        values = np.random.default_rng(n).permutation(n).astype(float)
        assert quantile(values, level) == (place - 1 if place <= n else math.inf)
        assert (place <= n) == (n >= least_images(level))


def test_decimals_are_meant_as_written():
    assert rank(19, 0.95) == 19  # 20 * 0.95 in doubles may be a hair above 19
    assert rank(99, 0.29) == 29  # 100 * 0.29 is 28.999999999999996
    assert least_images(0.95) == 19
    assert least_images(0.9) == 9


@pytest.mark.parametrize(("images", "level"), [(19, 0.95), (25, 0.8), (70, 0.95)])
def test_new_images_are_covered_as_often_as_promised(images, level):
    """Over draws of calibration images and one new image each; the bounds err once in 10^6."""
    random = np.random.default_rng(images)
    draws = 1200
    hits = dict.fromkeys(METHODS, 0)
    raw = 0
    for _ in range(draws):
        logits, labels = draw(random, images + 1, skill=0.6)
        found = SetCalibration.of(logits[:-1], labels[:-1], fresh=True)
        for method in METHODS:
            rule = found.rule(level, method)
            hits[method] += rule.members(logits[-1:])[0, labels[-1]]
            if method == "least-ambiguous":
                raw += scores(logits[-1:], method)[0, labels[-1]] <= rule.thresholds[0]
    for method in METHODS:
        assert hits[method] >= binom.ppf(1e-6, draws, level), method
    # scores without ties, and without the class that is always let in, are no wider than needed
    if images == 19:  # no class has images enough for a threshold of its own
        assert raw <= binom.ppf(1 - 1e-6, draws, level + 1 / (images + 1))


def test_every_class_is_covered_as_often_as_promised_where_it_has_images_enough():
    """One class is hard; a threshold of all together would leave it out too often."""
    random = np.random.default_rng(3)
    level = 0.8
    draws = 1000
    asked = 3
    alone = 0
    for _ in range(draws):
        labels = np.repeat(np.arange(4), 14)
        test = np.arange(4)
        both = np.concatenate([labels, test])
        logits = random.normal(0, 1, (len(both), 4))
        logits[np.arange(len(both)), both] += np.where(both == asked, 0.5, 3.0)
        found = SetCalibration.of(logits[:56], labels, fresh=True)
        rule = found.rule(level, "least-ambiguous")
        assert rule.own.all()
        alone += rule.members(logits[56:])[asked, asked]
    assert alone >= binom.ppf(1e-6, draws, level)
    assert alone <= binom.ppf(1 - 1e-6, draws, level + 1 / 15 + 0.05)


def test_classes_with_few_images_share_a_threshold_and_none_goes_below_it():
    random = np.random.default_rng(5)
    logits, labels = draw(random, 300, 3)
    few = np.concatenate([np.flatnonzero(labels < 2), np.flatnonzero(labels == 2)[:6]])
    found = SetCalibration.of(logits[few], labels[few], fresh=False)
    for method in METHODS:
        rule = found.rule(0.9, method)
        assert rule.own.tolist() == [True, True, False]
        own = found.adaptive if method == "adaptive" else found.least_ambiguous
        together = quantile(own, 0.9)
        assert rule.thresholds[2] == together
        for k in (0, 1):
            assert rule.thresholds[k] == max(together, quantile(own[found.labels == k], 0.9))
        assert "in 2 of 3 classes each for itself" in rule.guarantee()
        assert "nearly" in rule.guarantee()


def test_a_class_has_its_own_threshold_where_its_worst_image_alone_does_not_decide():
    logits, labels = draw(np.random.default_rng(6), 2000, 2)
    for images in range(1, 60):
        some = np.concatenate([np.flatnonzero(labels == k)[:images] for k in range(2)])
        rule = SetCalibration.of(logits[some], labels[some], fresh=True).rule(0.95, "adaptive")
        assert rule.own.all() == (images - rank(images, 0.95) >= OWN_MISSES)
        assert rule.own.all() == (images >= 39)


def test_too_few_images_let_every_class_in_and_say_so():
    logits, labels = draw(np.random.default_rng(7), 18)
    found = SetCalibration.of(logits, labels, fresh=True)
    for method in METHODS:
        rule = found.rule(0.95, method)
        assert not rule.enough
        assert rule.members(logits).all()
        assert "needs at least 19 calibration images and there are 18" in rule.guarantee()
        assert json.dumps(rule.to_dict(), allow_nan=False)
        evaluation = evaluate_sets(logits, labels, list("abcdefghijklmnopqr"), "vwxyz", rule)
        assert evaluation.coverage == 1
        assert evaluation.mean_size == 5
    assert found.rule(0.9, "adaptive").enough


def test_a_set_holds_the_best_class_and_whole_ranks():
    random = np.random.default_rng(8)
    logits, labels = draw(random, 400, 8)
    new, _ = draw(random, 200, 8)
    found = SetCalibration.of(logits, labels, fresh=True)
    for method in METHODS:
        inside = found.rule(0.3, method).members(new)
        assert inside[np.arange(200), new.argmax(axis=1)].all()
    # one threshold for all classes lets in the most probable ones
    rule = found.rule(0.995, "adaptive")
    assert not rule.own.any()
    inside = rule.members(new)
    for row, size in zip(range(200), inside.sum(axis=1), strict=True):
        assert set(np.argsort(-new[row], kind="stable")[:size]) == set(np.flatnonzero(inside[row]))


def test_sets_do_not_depend_on_the_other_images_or_their_number():
    logits, labels = draw(np.random.default_rng(9), 500)
    rule = SetCalibration.of(logits[:300], labels[:300], fresh=True).rule(0.9, "adaptive")
    whole = rule.members(logits[300:])
    for i in range(20):
        np.testing.assert_array_equal(rule.members(logits[300 + i : 301 + i])[0], whole[i])


def test_the_evaluation_counts_what_the_sets_hold():
    random = np.random.default_rng(10)
    logits, labels = draw(random, 900, 4)
    labels[labels == 3] = 2
    rule = SetCalibration.of(logits[:600], labels[:600], fresh=True).rule(0.9, "adaptive")
    keys = [f"{i:03}.png" for i in range(300)]
    evaluation = evaluate_sets(logits[600:], labels[600:], keys, list("abcd"), rule)
    inside = rule.members(logits[600:])
    hit = [inside[i, label] for i, label in enumerate(labels[600:])]
    assert evaluation.covered == sum(hit)
    assert evaluation.coverage == pytest.approx(sum(hit) / 300)
    assert evaluation.mean_size == pytest.approx(inside.sum() / 300)
    assert sum(evaluation.sizes) == 300
    assert evaluation.sizes[1] == (inside.sum(axis=1) == 2).sum()
    assert sum(each.covered for each in evaluation.per_class) == evaluation.covered
    assert evaluation.per_class[3].coverage is None
    assert not evaluation.cross_fitted
    values = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert values["per_class"][0]["name"] == "a"
    assert values["level"] == 0.9
    text = "\n".join(str(line) for line in evaluation.lines())
    assert "coverage" in text


def test_the_calibration_images_are_scored_by_the_others_whatever_their_order():
    logits, labels = draw(np.random.default_rng(11), 200)
    keys = [f"{i:03}.png" for i in range(200)]
    rule = SetCalibration.of(logits, labels, fresh=False).rule(0.9, "least-ambiguous")
    first = evaluate_sets(logits, labels, keys, list("abcde"), rule, cross_fit=True)
    assert first.cross_fitted
    order = np.random.default_rng(0).permutation(200)
    again = evaluate_sets(
        logits[order],
        labels[order],
        [keys[i] for i in order],
        list("abcde"),
        rule,
        cross_fit=True,
    )
    assert again.to_dict() == first.to_dict()
    fold = np.arange(200) % 5
    hits = 0
    for number in range(5):
        here = fold == number
        others = SetCalibration.of(logits[~here], labels[~here], fresh=False)
        inside = others.rule(0.9, "least-ambiguous").members(logits[here])
        hits += inside[np.arange(40), labels[here]].sum()
    assert first.covered == hits


def test_what_the_artifact_keeps_gives_the_same_sets():
    logits, labels = draw(np.random.default_rng(12), 150)
    found = SetCalibration.of(logits, labels, fresh=True)
    again = SetCalibration.from_arrays(found.to_arrays(), 5)
    assert again.fresh
    for method in METHODS:
        np.testing.assert_array_equal(
            again.rule(0.9, method).thresholds, found.rule(0.9, method).thresholds
        )
    assert not again.of_training
    training = SetCalibration.of(logits, labels, fresh=False, of_training=True)
    again = SetCalibration.from_arrays(training.to_arrays(), 5)
    assert again.of_training and not again.fresh
    with pytest.raises(WeightsError, match="are not of 3 classes"):
        SetCalibration.from_arrays(found.to_arrays(), 3)
    broken = found.to_arrays() | {"adaptive": np.full(150, np.nan)}
    with pytest.raises(WeightsError, match="are not of 5 classes"):
        SetCalibration.from_arrays(broken, 5)
    with pytest.raises(WeightsError, match="are kept as"):
        SetCalibration.from_arrays({"labels": labels}, 5)


@pytest.mark.parametrize("level", [0, 1, -0.1, 95, math.nan, math.inf])
def test_a_level_is_a_share(level):
    logits, labels = draw(np.random.default_rng(13), 30)
    with pytest.raises(UsageError, match="above 0 and below 1"):
        SetCalibration.of(logits, labels, fresh=True).rule(level, "adaptive")


def test_what_is_meant_by_95_and_by_another_method_is_suggested():
    logits, labels = draw(np.random.default_rng(13), 30)
    found = SetCalibration.of(logits, labels, fresh=True)
    with pytest.raises(UsageError, match=r"95 % is 0.95"):
        found.rule(95, "adaptive")
    with pytest.raises(UsageError, match="one of adaptive, least-ambiguous, not 'aps'"):
        found.rule(0.9, "aps")
