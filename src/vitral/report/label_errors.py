"""Images whose label is perhaps wrong, by what the model holds of it.

Confident learning (Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty
in Dataset Labels", section 3.1), as far as predictions.csv goes: it has the probabilities of the
given class and of the answer, where the paper asks every class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from vitral.evaluation import Prediction


def likely_label_errors(predictions: Sequence[Prediction]) -> list[int]:
    """Indices of the likely label errors, the likeliest first.

    A class's threshold is its self-confidence: the mean probability that the images labelled with
    it are given for it. An image is a candidate when the answer is another class with at least
    that class's threshold, and the probability of its label is below its label's. They are ranked
    by the margin, the probability of the answer less that of the label. None where a prediction
    does not hold it (files of four columns).
    """
    confidences: dict[str, list[float]] = defaultdict(list)
    for prediction in predictions:
        if prediction.label_probability is None:
            return []
        confidences[prediction.label].append(prediction.label_probability)
    thresholds = {name: sum(values) / len(values) for name, values in confidences.items()}
    margins = [
        (p.score - p.label_probability, i)
        for i, p in enumerate(predictions)
        if p.label_probability is not None
        and not p.correct
        and p.score >= thresholds.get(p.answer, 2.0)
        and p.label_probability < thresholds[p.label]
    ]
    return [i for _, i in sorted(margins, key=lambda pair: (-pair[0], pair[1]))]
