"""Multi-label scores against scikit-learn and scipy on random answers, and at the edges."""

import json

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binomtest
from sklearn import metrics

from vitral.errors import DataError, ModelError
from vitral.evaluation import (
    SingleLabelEvaluation,
    evaluate_multi_label,
    evaluate_single_label,
    wilson,
)
from vitral.evaluation.multi_label import average_precision


def names(count):
    return [f"class {i}" for i in range(count)]


def keys(count):
    return [f"{i}.jpg" for i in range(count)]


def draw(samples, count, share=0.3, seed=0, digits=1):
    """Logits with many ties, and labels that they have something to do with."""
    random = np.random.default_rng(seed)
    labels = random.random((samples, count)) < share
    logits = random.normal(0, 1, (samples, count)) + 1.5 * labels - 0.7
    return np.round(logits, digits), labels


@pytest.fixture(params=[(200, 2), (300, 7)])
def scored(request):
    samples, count = request.param
    logits, labels = draw(samples, count)
    found = evaluate_multi_label(logits, labels, names(count), keys(samples))
    return logits, labels, found


def test_agrees_with_scikit_learn(scored):
    logits, labels, found = scored
    guess = expit(logits) >= 0.5
    expected = metrics.average_precision_score(labels, logits, average="macro")
    assert found.mean_average_precision == pytest.approx(expected, rel=1e-12)
    assert found.accuracy == metrics.accuracy_score(labels, guess)
    assert found.f1_micro == pytest.approx(metrics.f1_score(labels, guess, average="micro"))
    assert found.f1_macro == pytest.approx(metrics.f1_score(labels, guess, average="macro"))
    probabilities = expit(logits)
    losses = [metrics.log_loss(labels[:, k], probabilities[:, k]) for k in range(labels.shape[1])]
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-9)
    exact = int((guess == labels).all(1).sum())
    interval = binomtest(exact, len(labels)).proportion_ci(method="wilson")
    assert found.accuracy_interval == pytest.approx((interval.low, interval.high), abs=1e-12)
    rows = [(s.precision, s.recall, s.f1, s.support) for s in found.per_class]
    columns = metrics.precision_recall_fscore_support(labels, guess)
    np.testing.assert_allclose(np.array(rows, float).T, columns, rtol=1e-12)
    each = metrics.average_precision_score(labels, logits, average=None)
    np.testing.assert_allclose([s.average_precision for s in found.per_class], each, rtol=1e-12)


def test_average_precision_of_a_sample_is_that_of_its_repetitions():
    logits, labels = draw(80, 1, share=0.1)
    random = np.random.default_rng(1)
    counts = random.multinomial(80, [1 / 80] * 80, size=20).T.astype(np.int32)
    counts[:, 0] = np.where(labels[:, 0], 0, 1)  # no positive is left
    found = average_precision(logits[:, 0], labels[:, 0], counts)
    assert np.isnan(found[0])
    for column in range(1, 20):
        rows = np.repeat(np.arange(80), counts[:, column])
        expected = metrics.average_precision_score(labels[rows, 0], logits[rows, 0])
        assert found[column] == pytest.approx(expected, rel=1e-12)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    whole, labels = draw(100_000, 3, digits=9)
    truth = metrics.average_precision_score(labels, whole)
    held = 0
    for number in range(60):
        logits, labels = draw(150, 3, seed=number + 1, digits=9)
        low, high = evaluate_multi_label(logits, labels, names(3), keys(150)).interval
        held += low <= truth <= high
        assert high - low < 0.25
    assert held >= 51  # 57 are expected of 95 %


def test_the_interval_is_the_seeds(scored):
    logits, labels, found = scored
    again = evaluate_multi_label(logits, labels, found.classes, keys(len(labels)))
    other = evaluate_multi_label(logits, labels, found.classes, keys(len(labels)), seed=1)
    assert again.interval == found.interval != other.interval
    assert other.score == found.score
    low, high = found.interval
    assert 0 <= low < found.score < high <= 1


def test_classes_without_a_positive_are_named_and_left_out():
    logits, labels = draw(50, 4)
    labels[:, 1] = False
    found = evaluate_multi_label(logits, labels, names(4), keys(50))
    kept = [0, 2, 3]
    expected = metrics.average_precision_score(labels[:, kept], logits[:, kept])
    assert found.mean_average_precision == pytest.approx(expected)
    assert found.without_positives == ("class 1",)
    empty = found.per_class[1]
    assert (empty.support, empty.average_precision, empty.recall) == (0, None, None)
    guess = logits >= 0
    expected = metrics.f1_score(labels, guess, average="macro", zero_division=np.nan)
    assert found.f1_macro == pytest.approx(expected)
    json.dumps(found.to_dict(), allow_nan=False)


def test_predictions_and_the_surest_mistakes_first():
    labels = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1], [1, 1, 0]], bool)
    logits = np.array([[2, -2, 0], [-1, -9, -3], [-1, 3, -4], [1, 5, 2.0]])
    found = evaluate_multi_label(logits, labels, ["a", "b", "c"], keys(4))
    assert [p.predicted for p in found.predictions] == [("a", "c"), (), ("b",), ("a", "b", "c")]
    assert [p.labels for p in found.predictions] == [("a", "c"), (), ("b", "c"), ("a", "b")]
    assert [p.score for p in found.predictions[:2]] == [0.0, 0.0]
    assert found.predictions[2].score == pytest.approx(1 - expit(-4))
    assert found.predictions[3].score == pytest.approx(expit(2))
    assert found.mistakes() == [2, 3]
    assert found.mistakes(1) == [2]
    assert found.accuracy == 0.5
    np.testing.assert_allclose(found.probabilities, expit(logits), rtol=1e-6)


def test_probabilities_give_what_their_logits_give():
    logits, labels = draw(60, 3)
    one = evaluate_multi_label(logits, labels, names(3), keys(60))
    other = evaluate_multi_label(expit(logits), labels, names(3), keys(60), "probabilities")
    assert other.interval == pytest.approx(one.interval, abs=1e-9)
    assert other.loss == pytest.approx(one.loss, rel=1e-9)
    assert other.predictions[0].predicted == one.predictions[0].predicted


def test_extreme_logits_and_a_perfect_order():
    labels = np.array([[1, 0], [0, 1]], bool)
    found = evaluate_multi_label([[1e4, -1e4], [-1e4, 1e4]], labels, names(2), keys(2))
    assert (found.score, found.accuracy, found.loss) == (1.0, 1.0, 0.0)
    wrong = evaluate_multi_label([[-1e4, 1e4], [1e4, -1e4]], labels, names(2), keys(2))
    assert wrong.loss == 1e4
    assert wrong.f1_micro == 0


def test_the_interval_stays_inside():
    labels = np.array([[1], [1], [0], [0], [1]], bool)
    found = evaluate_multi_label([[5], [4], [1], [-1], [2]], labels, ["a"], keys(5))
    assert found.interval == wilson(5, 5)  # a perfect score of five images is no certainty
    logits = [[5], [4], [3], [-1], [2]]
    low, high = evaluate_multi_label(logits, labels, ["a"], keys(5)).interval
    assert 0 < low < 1 == high


def test_both_kinds_of_evaluation_have_one_surface(scored):
    one = evaluate_single_label([[2.0, 0.0], [0.0, 1.0]], [0, 0], names(2), keys(2))
    multi_label = scored[2]
    assert isinstance(one, SingleLabelEvaluation)
    assert (one.headline, multi_label.headline) == ("accuracy", "mean average precision")
    assert one.score == one.accuracy == 0.5
    for found in (one, multi_label):
        values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert values[found.headline.replace(" ", "_")] == found.score
        assert tuple(values["interval"]) == found.interval
        assert (values["samples"], values["loss"]) == (found.samples, found.loss)
        assert values["accuracy"] == found.accuracy
        assert len(found.predictions) == found.samples
        assert all(0 <= i < found.samples for i in found.mistakes(3))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((3, 2), bool), "None of the 3 samples has a label"),
        (np.ones((3, 2), np.int64), r"not int64 \(3, 2\)"),
        (np.ones(3, bool), r"not bool \(3,\)"),
        (np.ones((2, 2), bool), r"labels \(2\)"),
    ],
)
def test_what_does_not_fit_is_one_sentence(labels, message):
    with pytest.raises(DataError, match=message):
        evaluate_multi_label(np.zeros((3, 2)), labels, names(2), keys(3))


def test_outputs_that_are_not_finite_name_their_samples():
    with pytest.raises(ModelError, match=r"1 of 2 samples \(1\.jpg\)"):
        evaluate_multi_label([[0, 0], [np.nan, 0]], np.ones((2, 2), bool), names(2), keys(2))
