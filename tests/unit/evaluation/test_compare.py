"""The comparison of two models against sums written out, and against drawn data."""

import json
from math import comb

import numpy as np
import pytest

from vitral.errors import DataError
from vitral.evaluation import compare, evaluate_single_label
from vitral.evaluation.compare import mcnemar, paired_interval

CLASSES = ["가", "b", "c"]


def model(right, truth, classes=CLASSES, keys=None):
    """The evaluation of a model that is right where `right` says so."""
    classes = list(classes)
    numbers = np.array([classes.index(CLASSES[t]) for t in truth])
    guess = np.where(right, numbers, (numbers + 1) % len(classes))
    names = [f"{i}.jpg" for i in range(len(truth))] if keys is None else keys
    return evaluate_single_label(4 * np.eye(len(classes))[guess], numbers, classes, names)


def drawn(samples=200, seed=0, share=0.8):
    random = np.random.default_rng(seed)
    truth = random.integers(0, 3, samples)
    return truth, random.random(samples) < share, random.random(samples) < share


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (3, 9), (10, 10), (40, 12), (0, 30)])
def test_mcnemar_is_the_two_sided_binomial_sum(b, c):
    n = b + c
    chances = [comb(n, k) / 2**n for k in range(n + 1)]
    expected = sum(p for p in chances if p <= chances[b] * (1 + 1e-9))
    assert mcnemar(b, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(c, b) == mcnemar(b, c)


def test_counts_are_those_of_a_plain_loop():
    truth, one, two = drawn()
    found = compare(model(one, truth), model(two, truth))
    assert found.samples == 200
    assert (found.both, found.only_first) == ((one & two).sum(), (one & ~two).sum())
    assert (found.only_second, found.neither) == ((~one & two).sum(), (~one & ~two).sum())
    assert found.accuracy == one.mean()
    assert found.other_accuracy == two.mean()
    assert found.difference == pytest.approx(one.mean() - two.mean())
    low, high = found.difference_interval
    assert low < found.difference < high
    values = json.loads(json.dumps(found.to_dict()))
    assert values["verdict"] == "not distinguishable"
    assert values["difference_interval"] == [low, high]
    other = compare(model(two, truth), model(one, truth))
    assert other.difference == pytest.approx(-found.difference)
    assert other.difference_interval == pytest.approx((-high, -low))
    assert other.p == found.p


def test_samples_are_paired_by_key_and_classes_by_name():
    truth, one, two = drawn()
    expected = compare(model(one, truth), model(two, truth))
    order = np.random.default_rng(1).permutation(200)
    keys = [f"{i}.jpg" for i in order]
    mixed = model(two[order], truth[order], classes=["c", "more", "가", "b"], keys=keys)
    assert compare(model(one, truth), mixed) == expected


def test_verdicts():
    truth, one, _ = drawn(share=0.5)
    better = one | (np.arange(200) < 30)
    assert compare(model(better, truth), model(one, truth)).verdict == "first is better"
    assert compare(model(one, truth), model(better, truth)).verdict == "second is better"
    same = compare(model(one, truth), model(one, truth))
    assert (same.verdict, same.p, same.difference) == ("not distinguishable", 1.0, 0.0)
    single = compare(model([True], [0]), model([False], [0]))
    assert (single.verdict, single.p, single.difference) == ("not distinguishable", 1.0, 1.0)
    assert single.difference_interval[1] == 1.0


def test_the_interval_is_bonett_and_prices():
    # b = 12, c = 3 of 50: p12 = 13/52, p21 = 4/52; the standard error written out
    p, q = 13 / 52, 4 / 52
    half = 1.959963984540054 * ((p + q - (p - q) ** 2) / 52) ** 0.5
    assert paired_interval(12, 3, 50) == pytest.approx((p - q - half, p - q + half))
    assert paired_interval(0, 0, 1)[0] >= -1


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    random, held = np.random.default_rng(0), 0
    for _ in range(1000):
        b, c, _ = random.multinomial(120, [0.15, 0.05, 0.8])
        low, high = paired_interval(int(b), int(c), 120)
        held += low <= 0.1 <= high
    assert 930 <= held <= 975


def test_other_images_or_labels_are_refused():
    truth, one, two = drawn(20)
    with pytest.raises(DataError, match="different images"):
        compare(model(one, truth), model(two[:19], truth[:19]))
    with pytest.raises(DataError, match=r"0\.jpg is '.' for the first"):
        compare(model(one, truth), model(two, (truth + 1) % 3))
