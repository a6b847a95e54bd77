"""How good a classifier is, in numbers that carry their interval; numpy only, no torch."""

from vitral.evaluation.metrics import (
    ClassScore,
    Evaluation,
    Prediction,
    class_scores,
    confusion_matrix,
    evaluate,
    wilson,
)
from vitral.evaluation.predictions import read_predictions, write_predictions

__all__ = [
    "ClassScore",
    "Evaluation",
    "Prediction",
    "class_scores",
    "confusion_matrix",
    "evaluate",
    "read_predictions",
    "wilson",
    "write_predictions",
]
