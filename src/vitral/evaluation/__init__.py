"""How good a classifier is, in numbers that carry their interval; numpy only, no torch.

Single-label and multi-label, `evaluate` and `evaluate_multi_label` give results of one surface:
`headline` (what its score is called), `score`, `interval`, `accuracy`, `samples`, `loss`,
`predictions`, `mistakes` and `to_dict`.
"""

from vitral.evaluation.calibration import Bin, Reliability, ReliabilityReport
from vitral.evaluation.compare import Comparison, compare
from vitral.evaluation.intervals import wilson
from vitral.evaluation.multi_label import (
    LabelScore,
    MultiLabelEvaluation,
    MultiLabelPrediction,
    evaluate_multi_label,
)
from vitral.evaluation.predictions import (
    joined,
    read_predictions,
    write_evaluation,
    write_predictions,
)
from vitral.evaluation.single_label import (
    ClassScore,
    Evaluation,
    Prediction,
    class_scores,
    confusion_matrix,
    evaluate,
)

__all__ = [
    "Bin",
    "ClassScore",
    "Comparison",
    "Evaluation",
    "LabelScore",
    "MultiLabelEvaluation",
    "MultiLabelPrediction",
    "Prediction",
    "Reliability",
    "ReliabilityReport",
    "class_scores",
    "compare",
    "confusion_matrix",
    "evaluate",
    "evaluate_multi_label",
    "joined",
    "read_predictions",
    "wilson",
    "write_evaluation",
    "write_predictions",
]
