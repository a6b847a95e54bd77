"""Intervals against scipy and scikit-learn, and how often they hold the truth."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from vitral.errors import DataError
from vitral.evaluation import confusion_matrix, wilson
from vitral.evaluation.intervals import macro_f1


def answers(samples, count, seed, absent=0):
    """Truths of uneven classes, and guesses that are right two times in three."""
    random = np.random.default_rng(seed)
    chances = np.arange(1, count + 1) / np.arange(1, count + 1).sum()
    truth = random.choice(count, samples, p=chances)
    guess = np.where(random.random(samples) < 2 / 3, truth, random.integers(0, count, samples))
    return truth + absent, guess + absent


@pytest.mark.parametrize(("correct", "total"), [(0, 7), (7, 7), (1, 1), (95, 100), (3710, 3925)])
def test_wilson_agrees_with_scipy(correct, total):
    expected = binomtest(correct, total).proportion_ci(method="wilson")
    assert wilson(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_edges():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0
    assert wilson(0, 5)[1] > 0.3
    with pytest.raises(DataError, match="6 of 5"):
        wilson(6, 5)


@pytest.mark.parametrize(("samples", "count"), [(300, 4), (40, 12), (3, 9)])
def test_macro_f1_agrees_with_scikit_learn(samples, count):
    truth, guess = answers(samples, count, seed=samples, absent=2)  # two classes never occur
    value, (low, high) = macro_f1(confusion_matrix(truth, guess, count + 2))
    assert value == pytest.approx(metrics.f1_score(truth, guess, average="macro"), rel=1e-12)
    assert 0 <= low < value <= high <= 1


def test_its_interval_is_that_of_samples_drawn_anew():
    truth, guess = answers(150, 5, seed=0)
    value, (low, high) = macro_f1(confusion_matrix(truth, guess, 5))
    random, drawn = np.random.default_rng(9), []
    for _ in range(1000):
        rows = random.integers(0, 150, 150)
        pairs = [(truth[rows] == k, guess[rows] == k) for k in range(5)]
        drawn.append(np.mean([2 * (t & g).sum() / (t.sum() + g.sum()) for t, g in pairs]))
    assert high - value == pytest.approx(1.96 * np.std(drawn), rel=0.1)
    assert value - low == pytest.approx(high - value)
    assert macro_f1(confusion_matrix(truth, guess, 5)) == (value, (low, high))


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    whole = metrics.f1_score(*answers(200_000, 4, seed=0), average="macro")
    held = 0
    for seed in range(1, 201):
        low, high = macro_f1(confusion_matrix(*answers(200, 4, seed=seed), 4))[1]
        held += low <= whole <= high
    assert 180 <= held < 200


@pytest.mark.parametrize("truth", [[0], [0, 1, 2], [1] * 9])
def test_where_nothing_is_wrong_or_right_the_interval_keeps_its_width(truth):
    value, (low, high) = macro_f1(confusion_matrix(truth, truth, 4))
    assert (value, high) == (1.0, 1.0)
    assert low == pytest.approx(wilson(len(truth), len(truth))[0])
    value, (low, high) = macro_f1(confusion_matrix(truth, [3] * len(truth), 4))
    assert (value, low) == (0.0, 0.0)
    assert high < 1
