"""Calibration against fine grids, plain loops and data whose temperature is known."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from vitral.evaluation.calibration import (
    TEMPERATURES,
    confidences,
    curve,
    fit,
    fit_temperature,
    normaliser,
    reliability,
    report,
    threshold,
)
from vitral.specs import Calibration


def draw(samples, count=6, temperature=1.0, seed=0):
    """Logits, and labels drawn from their softmax at this temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2.5, (samples, count))
    chances = softmax(logits / temperature, axis=1).cumsum(axis=1)
    labels = (random.random((samples, 1)) > chances).sum(axis=1).clip(0, count - 1)
    return logits, labels


def answers(samples=400, seed=0, digits=2):
    """Confidences with ties, and whether each is right: as often as it says."""
    random = np.random.default_rng(seed)
    confidence = np.round(random.random(samples) ** 0.5, digits)
    return confidence, random.random(samples) < confidence


def test_the_normaliser_is_that_of_the_softmax():
    logits, _ = draw(300, 7)
    logits[0] *= 1e4
    for temperature in (0.3, 1.0, 4.0):
        expected = logits / temperature - log_softmax(logits / temperature, axis=1)
        np.testing.assert_allclose(normaliser(logits, temperature), expected[:, 0], rtol=1e-12)
        top = softmax(logits / temperature, axis=1).max(axis=1)
        np.testing.assert_allclose(confidences(logits, temperature), top, rtol=1e-9)


@pytest.mark.parametrize("truth", [0.4, 1.0, 3.0])
def test_the_temperature_is_the_best_of_a_fine_grid(truth):
    logits, labels = draw(300, temperature=truth, seed=4)
    found = fit_temperature(logits, labels)
    grid = np.exp(np.linspace(np.log(0.1), np.log(10), 900))
    own = np.arange(300), labels
    losses = [-log_softmax(logits / t, axis=1)[own].mean() for t in grid]
    assert found == pytest.approx(grid[np.argmin(losses)], rel=6e-3)
    assert found == pytest.approx(truth, rel=0.25)
    again = fit_temperature(2 * logits + 7, labels)  # what is added to all classes says nothing
    assert again == pytest.approx(2 * found, rel=1e-3)


def test_temperatures_where_there_is_no_best():
    logits, _ = draw(50)
    right, wrong = logits.argmax(axis=1), logits.argmin(axis=1)
    # all right: as sure as 50 images can make it, and not surer
    sure = fit_temperature(logits, right)
    assert TEMPERATURES[0] < sure < 1
    mean = softmax(logits / sure, axis=1).max(axis=1).mean()
    assert 0.8 < mean < 1
    assert fit_temperature(logits[:3], right[:3]) > sure  # and three make it less
    assert fit_temperature(logits, wrong) == pytest.approx(TEMPERATURES[1], rel=1e-3)
    assert fit_temperature(np.zeros((5, 3)), np.zeros(5, int)) == 1
    assert fit_temperature(np.ones((5, 1)), np.zeros(5, int)) == 1
    assert np.isfinite(fit_temperature(logits[:1], right[:1]))
    assert np.isfinite(fit_temperature(1e4 * logits, wrong))


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_reliability_is_that_of_a_plain_loop(bins):
    confidence, right = answers()
    found = reliability(confidence, right, bins)
    expected, gap = [], 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = [i for i, c in enumerate(confidence) if low < c <= high or c == number == 0]
        if inside:
            mean, share = confidence[inside].mean(), right[inside].mean()
            expected.append((low, high, len(inside), mean, share))
            gap += len(inside) / len(right) * abs(mean - share)
    rows = [(b.low, b.high, b.count, b.confidence, b.accuracy) for b in found.bins]
    np.testing.assert_allclose(rows, expected, rtol=1e-12)
    assert found.ece == pytest.approx(gap, rel=1e-12)


def test_reliability_of_what_is_and_is_not_true():
    sure = reliability(np.ones(10), np.arange(10) < 7)
    assert sure.ece == pytest.approx(0.3)
    assert [(b.low, b.high, b.count) for b in sure.bins] == [(pytest.approx(14 / 15), 1.0, 10)]
    assert reliability(np.full(10, 0.7), np.arange(10) < 7).ece == pytest.approx(0)
    assert reliability([0.0], [True]).bins[0].low == 0
    assert reliability([], []).bins == ()


def test_each_point_of_the_curve_is_what_counting_gives():
    confidence, right = answers()
    points = curve(confidence, right)
    assert 60 < len(points) <= len(set(confidence)) <= 101
    for least, coverage, accuracy in points:
        answered = confidence >= least
        assert coverage == pytest.approx(answered.mean())
        assert accuracy == pytest.approx(right[answered].mean())
    assert points[0][1] == 1.0
    assert points[-1][0] == confidence.max()
    assert sorted(points) == list(points)
    fine = curve(*answers(5000, digits=9))
    assert len(fine) == 101
    assert np.diff([coverage for _, coverage, _ in fine]) == pytest.approx(-0.01, abs=2e-3)
    assert curve([0.5] * 9, [True] * 3 + [False] * 6) == ((0.5, 1.0, pytest.approx(1 / 3)),)


@pytest.mark.parametrize("target", [0.5, 0.8, 0.95, 1.0])
def test_the_threshold_is_the_smallest_that_reaches_the_target(target):
    for seed in range(5):
        confidence, right = answers(seed=seed)
        least, reached = threshold(confidence, right, target)
        shares = {c: right[confidence >= c].mean() for c in sorted(set(confidence))}
        enough = {c for c in shares if (confidence >= c).sum() >= 20}
        fine = [c for c, share in shares.items() if share >= target and c in enough]
        if fine:
            assert (least, reached) == (min(fine), target)
        else:
            some = {c: share for c, share in shares.items() if (confidence >= c).mean() >= 0.1}
            assert reached == max(some.values())
            assert least == min(c for c, share in some.items() if share == reached)


def test_a_target_out_of_reach_takes_the_best_tenth():
    confidence = np.arange(20) / 20
    right = np.arange(20) % 3 == 0  # the surest is wrong: no share of 95 %
    assert threshold(confidence, right, 0.95) == (0.9, 0.5)
    # one right answer on top shows nothing of 100, and something of 10
    lucky = np.arange(100) == 99
    assert threshold(np.arange(100) / 100, lucky, 0.95) == (0.9, 0.1)
    assert threshold(np.arange(10) / 10, lucky[90:], 0.95) == (0.9, 0.95)
    wrong = np.zeros(20, bool)
    assert threshold(confidence, wrong, 0.95) == (0.0, 0.0)


def test_a_fit_makes_the_sure_answers_right():
    logits, labels = draw(2000, temperature=1.5)
    found = fit(3 * logits, labels)
    assert found.samples == 2000
    assert found.target == 0.95
    sure = confidences(3 * logits, found.temperature) >= found.threshold
    right = logits.argmax(axis=1) == labels
    assert right[sure].mean() >= found.target - 1e-3
    assert 0.03 < sure.mean() < 1
    # of few errors the sure answers make half as many
    easy = np.where(np.eye(6, dtype=bool)[labels], 9.0, logits)
    easy[:40] = -easy[:40]
    assert fit(easy, labels).target == pytest.approx(1 - (easy.argmax(1) != labels).mean() / 2)


def test_fits_of_the_extremes():
    logits, _ = draw(50)
    right, wrong = logits.argmax(axis=1), logits.argmin(axis=1)
    found = fit(logits, right)
    assert found.target == 1.0
    assert (confidences(logits, found.temperature) >= found.threshold).all()
    found = fit(logits, wrong)
    assert found.threshold == 1.0
    assert (confidences(logits, found.temperature) < 1).all()
    for samples, count in ((1, 3), (1, 1), (3, 1), (2, 2)):
        logits, labels = draw(samples, count)
        assert fit(logits, labels).samples == samples


def folds(keys):
    return {key: place % 5 for place, key in enumerate(sorted(keys))}


def test_on_its_own_images_each_fifth_is_judged_by_the_others():
    logits, labels = draw(203, temperature=2.5, seed=3)
    keys = [f"{name}.jpg" for name in np.random.default_rng(0).permutation(203)]
    found = report(logits, labels, keys, fit(logits, labels), cross_fit=True)
    assert found.cross_fitted
    confidence, sure, number = np.empty(203), np.empty(203, bool), folds(keys)
    for fold in range(5):
        inside = np.array([number[key] == fold for key in keys])
        of_others = fit(logits[~inside], labels[~inside])
        top = softmax(logits[inside] / of_others.temperature, axis=1).max(axis=1)
        confidence[inside], sure[inside] = top, top >= of_others.threshold
    right = logits.argmax(axis=1) == labels
    assert found.after.ece == pytest.approx(reliability(confidence, right).ece, rel=1e-6)
    assert found.coverage == sure.mean()
    assert found.accuracy_when_sure == right[sure].mean()
    np.testing.assert_allclose(found.curve, curve(confidence, right), rtol=1e-6)
    # the order of the images decides nothing
    order = np.random.default_rng(1).permutation(203)
    mixed = report(
        logits[order], labels[order], [keys[i] for i in order], found.calibration, cross_fit=True
    )
    assert mixed.coverage == found.coverage
    assert mixed.after.ece == pytest.approx(found.after.ece, rel=1e-6)


def test_on_other_images_the_temperature_is_used_as_it_is():
    logits, labels = draw(300, temperature=2.5)
    fitted = Calibration(temperature=1.7, threshold=0.6, target=0.9, samples=9)
    found = report(logits, labels, [str(i) for i in range(300)], fitted)
    top, right = softmax(logits / 1.7, axis=1).max(axis=1), logits.argmax(axis=1) == labels
    assert not found.cross_fitted
    assert found.after.ece == pytest.approx(reliability(top, right).ece)
    before = softmax(logits, axis=1).max(axis=1)
    assert found.before.ece == pytest.approx(reliability(before, right).ece)
    assert found.coverage == (top >= 0.6).mean()
    assert found.accuracy_when_sure == right[top >= 0.6].mean()
    values = found.to_dict()
    assert (values["temperature"], values["threshold"], values["target"]) == (1.7, 0.6, 0.9)


def test_calibration_helps_on_images_that_it_has_not_seen():
    logits, labels = draw(2000)
    logits *= 3  # three times as sure as it should be
    fitted = fit(logits[:1000], labels[:1000])
    found = report(logits[1000:], labels[1000:], [str(i) for i in range(1000)], fitted)
    assert found.after.ece < found.before.ece / 3
    assert found.accuracy_when_sure == pytest.approx(fitted.target, abs=0.05)


def test_without_a_calibration_only_what_is_is_told():
    logits, labels = draw(50)
    values = report(logits, labels, [str(i) for i in range(50)], None, cross_fit=True).to_dict()
    for name in ("temperature", "threshold", "target", "after", "coverage", "accuracy_when_sure"):
        assert values[name] is None
    assert not values["cross_fitted"]
    assert len(values["curve"]) == 50
    one = report(logits[:1], labels[:1], ["0"], fit(logits[:1], labels[:1]), cross_fit=True)
    assert not one.cross_fitted  # there are no others to fit it on
