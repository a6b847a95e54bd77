"""Likely label errors: those that confident learning finds, written out with numpy."""

import numpy as np
import pytest

from vitral.evaluation import Prediction, evaluate_single_label
from vitral.report.label_errors import likely_label_errors


def by_the_paper(probabilities, labels):
    """Candidates by loops over the definition: threshold per class, then both conditions."""
    thresholds = {
        k: np.mean([p[k] for p, y in zip(probabilities, labels, strict=True) if y == k])
        for k in set(labels)
    }
    found = []
    for i, (p, y) in enumerate(zip(probabilities, labels, strict=True)):
        said = int(np.argmax(p))
        if (
            said in thresholds
            and said != y
            and p[said] >= thresholds[said]
            and p[y] < thresholds[y]
        ):
            found.append((p[y] - p[said], i))
    return [i for _, i in sorted(found)]


@pytest.mark.parametrize("seed", range(5))
def test_as_the_definition_says(seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, 300)
    logits = random.normal(0, 1, (300, 6))  # class 5 has no image
    logits[np.arange(300), labels] += 3
    noisy = labels.copy()
    flipped = random.choice(300, 20, replace=False)
    noisy[flipped] = (labels[flipped] + 1) % 5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    evaluation = evaluate_single_label(logits, noisy, "abcdef", [str(i) for i in range(300)])
    found = likely_label_errors(evaluation.predictions)
    assert found == by_the_paper(probabilities, noisy.tolist())
    assert len(set(found[:10]) & set(flipped.tolist())) >= 7  # the first are mostly the wrong ones


def test_without_the_probability_of_the_label_nothing_is_said():
    unknown = Prediction(key="1.jpg", labels=("a",), predicted=("b",), score=0.99)
    assert likely_label_errors([unknown]) == []
    assert likely_label_errors([]) == []


def test_a_label_that_the_class_is_seldom_given_more_for_is_not_doubted():
    rows = [("a", "b", 0.6, 0.4), ("a", "b", 0.8, 0.2), ("b", "b", 0.6, 0.6), ("b", "b", 0.5, 0.5)]
    predictions = [
        Prediction(
            key=f"{i}",
            labels=(label,),
            predicted=(predicted,),
            score=score,
            label_probability=given,
        )
        for i, (label, predicted, score, given) in enumerate(rows)
    ]
    # both are sure enough of b (0.55), but 0.4 is more than a's images get on the mean (0.3)
    assert likely_label_errors(predictions) == [1]
