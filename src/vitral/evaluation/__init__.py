"""Scores of a model, in numbers that carry their interval; numpy only, no torch.

Every evaluation is a `Score`: it has a `headline` (what its score is called), `score`, `interval`,
`samples`, `loss`, `predictions`, `mistakes` and `to_dict`. `evaluate` makes the one of a task.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitral.evaluation.compare import Comparison, compare
from vitral.evaluation.intervals import wilson
from vitral.evaluation.multi_label import MultiLabelEvaluation, evaluate_multi_label, joined
from vitral.evaluation.predictions import (
    PredictionTable,
    read_predictions,
    write_evaluation,
    write_predictions,
)
from vitral.evaluation.score import ClassScore, Prediction, Score, Table, mistakes
from vitral.evaluation.single_label import (
    SingleLabelEvaluation,
    class_scores,
    confusion_matrix,
    evaluate_single_label,
)
from vitral.specs import Calibration
from vitral.specs.task import TaskKind

Evaluation = SingleLabelEvaluation | MultiLabelEvaluation  # of a classifier; told apart by `kind`

__all__ = [
    "ClassScore",
    "Comparison",
    "Evaluation",
    "MultiLabelEvaluation",
    "Prediction",
    "PredictionTable",
    "Score",
    "SingleLabelEvaluation",
    "Table",
    "class_scores",
    "compare",
    "confusion_matrix",
    "evaluate",
    "evaluate_multi_label",
    "evaluate_single_label",
    "joined",
    "mistakes",
    "read_predictions",
    "wilson",
    "write_evaluation",
    "write_predictions",
]


def evaluate(
    kind: TaskKind,
    logits: NDArray[np.float32],
    labels: NDArray[np.int64] | NDArray[np.bool_],
    classes: Sequence[str],
    keys: Sequence[str],
    *,
    calibration: Calibration | None = None,
    cross_fit: bool = False,
) -> Evaluation:
    """Score the logits of a classifier by its task.

    Args:
        kind: of the task; a multi-label one may be given images that have one label each.
        logits: (N, K).
        labels: int (N,), the class of each sample; or multi-label, bool (N, K).
        classes: K distinct names in the order of the logits; keys: N names of the samples.
        calibration, cross_fit: as of `evaluate_single_label`; a multi-label task has none.

    Raises DataError when the shapes do not fit, ModelError when a logit is not finite.
    """
    match kind:
        case "single_label":
            return evaluate_single_label(
                logits, labels, classes, keys, calibration=calibration, cross_fit=cross_fit
            )
        case "multi_label":
            if labels.ndim == 1:
                labels = labels[:, None] == np.arange(len(classes))
            return evaluate_multi_label(logits, labels, classes, keys)
