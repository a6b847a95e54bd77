"""Scores of a model, in numbers that carry their interval; numpy only, no torch.

Every evaluation is a `Score`: it has a `headline` (what its score is called), `score`, `interval`,
`samples`, `loss`, `predictions`, `mistakes` and `to_dict`. `evaluate` makes the one of a task.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vitral.evaluation.answer_sets import SetRule, evaluate_sets
from vitral.evaluation.class_tree import evaluate_tree
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
from vitral.specs.tree import ClassTree

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


def evaluate(  # noqa: PLR0913 - each has a name at every call
    kind: TaskKind,
    logits: NDArray[np.float32],
    labels: NDArray[np.int64] | NDArray[np.bool_],
    classes: Sequence[str],
    keys: Sequence[str],
    *,
    calibration: Calibration | None = None,
    cross_fit: bool = False,
    tree: ClassTree | None = None,
    rule: SetRule | None = None,
) -> Evaluation:
    """Score the logits of a classifier by its task.

    Args:
        kind: of the task; a multi-label one may be given images that have one label each.
        logits: (N, K).
        labels: int (N,), the class of each sample; or multi-label, bool (N, K).
        classes: K distinct names in the order of the logits; keys: N names of the samples.
        calibration, cross_fit: as of `evaluate_single_label`; a multi-label task has none, nor
            what follows.
        tree: groups of the classes, to be scored too.
        rule: of answer sets, to be counted too; one of other images is never cross-fitted.

    Raises DataError when the shapes do not fit, ModelError when a logit is not finite.
    """
    match kind:
        case "single_label":
            scored = evaluate_single_label(
                logits, labels, classes, keys, calibration=calibration, cross_fit=cross_fit
            )
            if tree is not None:
                groups = evaluate_tree(
                    logits, labels, keys, classes, tree, calibration, cross_fit=cross_fit
                )
                scored = replace(scored, tree=groups)
            if rule is not None:
                own = cross_fit and rule.of_training
                sets = evaluate_sets(logits, labels, keys, classes, rule, cross_fit=own)
                scored = replace(scored, sets=sets)
            return scored
        case "multi_label":
            if labels.ndim == 1:
                labels = labels[:, None] == np.arange(len(classes))
            return evaluate_multi_label(logits, labels, classes, keys)
