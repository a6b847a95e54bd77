"""Metrics against scikit-learn and scipy on random predictions, and by hand at the edges."""

import json

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
from sklearn import metrics

from vitral.errors import DataError, ModelError
from vitral.evaluation import confusion_matrix, evaluate_single_label
from vitral.specs import Calibration


def names(count):
    return [f"class {i}" for i in range(count)]


def keys(count):
    return [f"{i}.jpg" for i in range(count)]


@pytest.fixture(params=[2, 5, 12])
def scored(request):
    count = request.param
    random = np.random.default_rng(count)
    labels = random.integers(0, count, 300)
    logits = random.normal(0, 2, (300, count))
    logits[np.arange(300), labels] += 1.5
    return logits, labels, evaluate_single_label(logits, labels, names(count), keys(300))


def test_agrees_with_scikit_learn(scored):
    logits, labels, found = scored
    guess = logits.argmax(1)
    assert found.accuracy == metrics.accuracy_score(labels, guess)
    assert (found.confusion == metrics.confusion_matrix(labels, guess)).all()
    expected = metrics.precision_recall_fscore_support(labels, guess, zero_division=0)
    rows = [(s.precision or 0, s.recall or 0, s.f1 or 0, s.support) for s in found.per_class]
    np.testing.assert_allclose(np.array(rows).T, expected, rtol=1e-12)
    assert found.loss == pytest.approx(metrics.log_loss(labels, softmax(logits, axis=1)), rel=1e-9)
    if len(found.classes) > 5:
        top5 = metrics.top_k_accuracy_score(labels, logits, k=5, labels=range(len(found.classes)))
        assert found.top5 == pytest.approx(top5)
    else:
        assert found.top5 is None


def test_predictions_carry_the_softmax_score(scored):
    logits, labels, found = scored
    probabilities = softmax(logits, axis=1)
    for i in (0, 17, 299):
        prediction = found.predictions[i]
        assert prediction.key == f"{i}.jpg"
        assert prediction.label == f"class {labels[i]}"
        assert prediction.answer == f"class {logits[i].argmax()}"
        assert prediction.score == pytest.approx(probabilities[i].max())


def test_every_number_has_its_interval(scored):
    logits, labels, found = scored
    guess, count = logits.argmax(1), logits.shape[1]

    def interval(hits, total):
        expected = binomtest(int(hits), int(total)).proportion_ci(method="wilson")
        return pytest.approx((expected.low, expected.high), abs=1e-12)

    assert found.interval == interval((guess == labels).sum(), 300)
    assert found.macro_f1 == pytest.approx(metrics.f1_score(labels, guess, average="macro"))
    low, high = found.macro_f1_interval
    assert 0 < low < found.macro_f1 < high < 1
    if count > 5:
        hits = [label in np.argsort(-row)[:5] for row, label in zip(logits, labels, strict=True)]
        assert found.top5_interval == interval(sum(hits), 300)
    else:
        assert found.top5_interval is None
    for k, score in enumerate(found.per_class):
        right = ((guess == k) & (labels == k)).sum()
        assert score.recall_interval == interval(right, (labels == k).sum())
        assert score.precision_interval == interval(right, (guess == k).sum())


def test_ties_go_to_the_lower_index_among_five_as_for_one():
    found = evaluate_single_label(np.zeros((8, 8)), range(8), names(8), keys(8))
    assert found.correct == 1
    assert found.top5 == 5 / 8


def test_a_temperature_changes_probabilities_and_nothing_else(scored):
    logits, labels, plain = scored
    count = logits.shape[1]
    fitted = Calibration(temperature=2.0, threshold=0.5, target=0.9, samples=7)
    found = evaluate_single_label(logits, labels, names(count), keys(300), calibration=fitted)
    probabilities = softmax(logits / 2, axis=1)
    np.testing.assert_allclose([p.score for p in found.predictions], probabilities.max(axis=1))
    given = probabilities[np.arange(300), labels]
    np.testing.assert_allclose([p.label_probability for p in found.predictions], given)
    assert [p.predicted for p in found.predictions] == [p.predicted for p in plain.predictions]
    assert (found.accuracy, found.loss, found.macro_f1) == (
        plain.accuracy,
        plain.loss,
        plain.macro_f1,
    )
    assert found.reliability.coverage == (probabilities.max(axis=1) >= 0.5).mean()
    assert plain.reliability.calibration is None
    own = evaluate_single_label(
        logits, labels, names(count), keys(300), calibration=fitted, cross_fit=True
    )
    assert own.reliability.cross_fitted and not found.reliability.cross_fitted
    assert own.predictions == found.predictions  # as predict answers


def test_to_dict_is_the_contract_and_is_json(scored):
    values = json.loads(json.dumps(scored[2].to_dict()))
    assert values["samples"] == 300
    low, high = values["interval"]
    assert low < values["accuracy"] < high
    assert sum(map(sum, values["confusion"])) == 300
    parts = "accuracy interval samples correct loss top5 top5_interval macro_f1 macro_f1_interval"
    parts += " classes per_class confusion calibration"
    assert set(values) == set(parts.split())
    fitted = "temperature threshold target cross_fitted before after coverage accuracy_when_sure"
    assert set(values["calibration"]) == {*fitted.split(), "curve"}
    edges = {"low", "high", "count", "confidence", "accuracy"}
    assert set(values["calibration"]["before"]["bins"][0]) == edges
    assert sum(found["count"] for found in values["calibration"]["before"]["bins"]) == 300


def test_a_class_that_never_occurs_has_no_score():
    found = evaluate_single_label([[5, 0, 0], [5, 0, 0], [0, 5, 0]], [0, 1, 0], names(3), keys(3))
    empty = found.per_class[2]
    assert (empty.support, empty.predicted) == (0, 0)
    assert empty.precision is empty.recall is empty.recall_interval is empty.f1 is None
    assert empty.precision_interval is None
    assert found.per_class[0].recall == 0.5
    json.dumps(found.to_dict(), allow_nan=False)


def test_one_sample_and_extreme_logits():
    found = evaluate_single_label([[1e4, -1e4]], [1], names(2), keys(1))
    assert found.accuracy == 0.0
    assert found.loss == pytest.approx(-log_softmax([1e4, -1e4])[1])
    assert found.predictions[0].score == 1.0
    assert found.predictions[0].label_probability == 0.0
    json.dumps(found.to_dict(), allow_nan=False)


def test_probabilities_may_be_sigmoid_scores():
    found = evaluate_single_label(
        [[0.9, 0.8], [0.1, 0.0]], [0, 1], names(2), keys(2), kind="probabilities"
    )
    assert found.accuracy == 0.5
    assert found.predictions[0].score == pytest.approx(0.9)
    assert found.predictions[1].label_probability == 0.0
    assert np.isfinite(found.loss)
    assert found.reliability.before.ece == pytest.approx((0.1 + 0.1) / 2)
    fitted = Calibration(temperature=2.0, threshold=0.5, target=0.9, samples=7)
    with pytest.raises(DataError, match="temperature divides logits"):
        evaluate_single_label([[0.9, 0.8]], [0], names(2), keys(1), "probabilities", fitted)


def test_mistakes_come_most_confident_first():
    logits = [[0, 3], [3, 0], [0, 1], [0, 9]]
    found = evaluate_single_label(logits, [0, 0, 0, 0], names(2), keys(4))
    assert found.mistakes() == [3, 0, 2]
    assert found.mistakes(1) == [3]


def test_confusion_rows_are_the_truth():
    assert confusion_matrix([0, 0, 1], [1, 1, 0], 2).tolist() == [[0, 2], [1, 0]]
    assert confusion_matrix([], [], 0).shape == (0, 0)


@pytest.mark.parametrize(
    ("outputs", "labels", "classes", "samples", "message"),
    [
        (np.zeros((0, 2)), [], names(2), [], "nothing to evaluate"),
        (np.zeros(3), [0, 0, 0], names(2), keys(3), "shape"),
        (np.zeros((3, 2)), [0, 0], names(2), keys(3), r"labels \(2\)"),
        (np.zeros((3, 2)), [0, 0, 0], names(3), keys(3), r"class names \(3\)"),
        (np.zeros((2, 2)), [0, 2], names(2), keys(2), r"from 0 to 1; 1\.jpg has 2"),
        (np.zeros((2, 2)), [0, 0.5], names(2), keys(2), "Labels are class numbers"),
        (np.zeros((2, 2)), [0, 1], ["a", "a"], keys(2), "a occur more than once"),
    ],
)
def test_what_does_not_fit_is_one_sentence(outputs, labels, classes, samples, message):
    with pytest.raises(DataError, match=message):
        evaluate_single_label(outputs, labels, classes, samples)


def test_outputs_that_are_not_finite_name_their_samples():
    logits = np.zeros((5, 2))
    logits[1:, 0] = np.nan
    with pytest.raises(ModelError, match=r"4 of 5 samples \(1\.jpg, 2\.jpg, 3\.jpg and 1 more\)"):
        evaluate_single_label(logits, [0] * 5, names(2), keys(5))


def test_logits_are_never_taken_for_probabilities():
    with pytest.raises(DataError, match="kind='logits'"):
        evaluate_single_label([[2.0, -1.0]], [0], names(2), keys(1), kind="probabilities")
    with pytest.raises(DataError, match="kind is"):
        evaluate_single_label([[2.0, -1.0]], [0], names(2), keys(1), kind="scores")
