"""Scores with their intervals, class by class too, the confusions, and how far to believe them.

evaluation = evaluate(logits, labels, classes, keys)     # (N, K), (N,), K names, N paths
evaluation.accuracy, evaluation.interval                 # 0.9452, (0.9376, 0.9519)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitral.errors import DataError, ModelError
from vitral.evaluation import calibration as calibrating
from vitral.evaluation.calibration import ReliabilityReport
from vitral.evaluation.intervals import macro_f1, wilson
from vitral.specs import Calibration
from vitral.wording import listed


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """How one class fared.

    Attributes:
        name: the class.
        support: samples whose truth it is.
        correct: those of them that were predicted as it.
        predicted: samples that were predicted as it.
        precision: correct / predicted; None when it was never predicted.
        precision_interval: Wilson 95 % of the precision; None likewise.
        recall: correct / support; None when it has no sample.
        recall_interval: Wilson 95 % of the recall; None likewise.
        f1: harmonic mean of precision and recall; None when it never occurs on either side.
    """

    name: str
    support: int
    correct: int
    predicted: int
    precision: float | None
    precision_interval: tuple[float, float] | None
    recall: float | None
    recall_interval: tuple[float, float] | None
    f1: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The answer for one sample.

    Attributes:
        key: its name, usually its path.
        label, predicted: the true class, and the most probable one.
        score: the probability of `predicted`.
        given: the probability of `label`; None in files that do not tell it.
    """

    key: str
    label: str
    predicted: str
    score: float
    given: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        classes: K names in the order of the logits.
        samples: N; correct: those whose most probable class is the truth.
        accuracy: correct / samples; interval: its Wilson 95 % interval.
        loss: mean cross-entropy in nats, of the outputs as they are.
        top5: share of samples whose truth is among the five most probable; None for K <= 5.
            top5_interval: its Wilson 95 % interval.
        macro_f1: mean F1 of the classes that occur as truth or as prediction.
            macro_f1_interval: its 95 % interval, see `macro_f1`.
        per_class: one score per class.
        confusion: (K, K) counts; rows are the truth, columns the prediction.
        reliability: whether the probabilities mean what they say, and from which one on.
        predictions: one per sample, in the order given, with calibrated probabilities where the
            model has a temperature.
    """

    classes: tuple[str, ...]
    samples: int
    correct: int
    accuracy: float
    interval: tuple[float, float]
    loss: float
    top5: float | None
    top5_interval: tuple[float, float] | None
    macro_f1: float
    macro_f1_interval: tuple[float, float]
    per_class: tuple[ClassScore, ...]
    confusion: NDArray[np.int64]
    reliability: ReliabilityReport
    predictions: tuple[Prediction, ...]

    @property
    def headline(self) -> Literal["accuracy"]:
        """What `score` is called."""
        return "accuracy"

    @property
    def score(self) -> float:
        """What weights are compared by, 0 to 1; `interval` is its interval."""
        return self.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the predictions (those go to predictions.csv)."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "samples": self.samples,
            "correct": self.correct,
            "loss": self.loss,
            "top5": self.top5,
            "top5_interval": None if self.top5_interval is None else list(self.top5_interval),
            "macro_f1": self.macro_f1,
            "macro_f1_interval": list(self.macro_f1_interval),
            "classes": list(self.classes),
            "per_class": [asdict(score) for score in self.per_class],
            "confusion": self.confusion.tolist(),
            "calibration": self.reliability.to_dict(),
        }

    def mistakes(self, most: int | None = None) -> list[int]:
        """Indices of the wrongly predicted samples, the most confident first; at most `most`."""
        wrong = [i for i, p in enumerate(self.predictions) if p.label != p.predicted]
        return sorted(wrong, key=lambda i: -self.predictions[i].score)[:most]


def evaluate(
    outputs: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    keys: Sequence[str],
    kind: Literal["logits", "probabilities"] = "logits",
    calibration: Calibration | None = None,
    own: bool = False,
) -> Evaluation:
    """Score a classifier's outputs.

    Args:
        outputs: (N, K) logits, or probabilities with kind="probabilities" (rows need not sum to
            one, so sigmoid scores are welcome).
        labels: (N,) indices of the true class, 0 <= label < K.
        classes: K distinct names in the order of the columns.
        keys: N distinct names of the samples, usually their paths.
        kind: what `outputs` are; never guessed from the values.
        calibration: of the model; a temperature divides logits, so probabilities have none.
        own: whether these are the images that the calibration was fitted on: what it is worth is
            then told by cross-fitting, since those images flatter it.

    Raises DataError without a sample or if lengths or labels do not fit, ModelError if not finite.
    """
    scores, truth = np.asarray(outputs, dtype=np.float64), np.asarray(labels)
    _check(scores, truth, classes, keys, kind)
    if kind == "probabilities" and calibration is not None:
        raise DataError("A temperature divides logits; give those, or leave the calibration out.")
    truth = truth.astype(np.int64)
    (samples, count), guess = scores.shape, scores.argmax(axis=1)
    row = np.arange(samples)
    matrix = confusion_matrix(truth, guess, count)
    correct, among = int(np.trace(matrix)), _among(scores, truth, 5) if count > 5 else None
    if kind == "logits":
        loss = float((calibrating.normaliser(scores) - scores[row, truth]).mean())
        temperature = 1.0 if calibration is None else calibration.temperature
        total = calibrating.normaliser(scores, temperature)
        best, given = (np.exp(scores[row, k] / temperature - total) for k in (guess, truth))
        reliability = calibrating.report(scores, truth, keys, calibration, own=own)
    else:
        best, given = scores[row, guess], scores[row, truth]
        loss = float(-np.log(np.maximum(given, 1e-300)).mean())
        reliability = calibrating.uncalibrated(best, guess == truth)
    macro, around = macro_f1(matrix)
    return Evaluation(
        classes=tuple(classes),
        samples=samples,
        correct=correct,
        accuracy=correct / samples,
        interval=wilson(correct, samples),
        loss=loss,
        top5=None if among is None else among / samples,
        top5_interval=None if among is None else wilson(among, samples),
        macro_f1=macro,
        macro_f1_interval=around,
        per_class=class_scores(matrix, classes),
        confusion=matrix,
        reliability=reliability,
        predictions=_predictions(keys, classes, (truth, guess), (best, given)),
    )


def _predictions(
    keys: Sequence[str],
    classes: Sequence[str],
    numbers: tuple[NDArray[np.int64], NDArray[np.int64]],
    shares: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> tuple[Prediction, ...]:
    """Of the true and predicted classes, and the probabilities of the predicted and the true."""
    columns = [column.tolist() for column in (*numbers, *shares)]
    return tuple(
        Prediction(key=key, label=classes[t], predicted=classes[g], score=s, given=p)
        for key, t, g, s, p in zip(keys, *columns, strict=True)
    )


def confusion_matrix(truth: ArrayLike, guess: ArrayLike, count: int) -> NDArray[np.int64]:
    """(count, count) counts of (truth, prediction) pairs of class indices; rows are the truth."""
    pairs = np.asarray(truth, dtype=np.int64) * count + np.asarray(guess, dtype=np.int64)
    return np.bincount(pairs, minlength=count * count).reshape(count, count).astype(np.int64)


def class_scores(confusion: NDArray[np.int64], classes: Sequence[str]) -> tuple[ClassScore, ...]:
    """One ClassScore per class from a (K, K) confusion matrix (rows are the truth)."""
    columns = zip(
        classes, confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal(), strict=True
    )
    return tuple(_class_score(name, int(s), int(p), int(c)) for name, s, p, c in columns)


def _class_score(name: str, support: int, predicted: int, correct: int) -> ClassScore:
    return ClassScore(
        name=name,
        support=support,
        correct=correct,
        predicted=predicted,
        precision=correct / predicted if predicted else None,
        precision_interval=wilson(correct, predicted) if predicted else None,
        recall=correct / support if support else None,
        recall_interval=wilson(correct, support) if support else None,
        f1=2 * correct / (support + predicted) if support + predicted else None,
    )


def _among(scores: NDArray[np.float64], truth: NDArray[np.int64], count: int) -> int:
    """Samples whose truth is among the `count` highest.

    Ties go to the lower index, as in argmax, so that top-1 never exceeds top-5.
    """
    own = scores[np.arange(len(truth)), truth][:, None]
    before = np.arange(scores.shape[1]) < truth[:, None]
    ahead = (scores > own).sum(axis=1) + ((scores == own) & before).sum(axis=1)
    return int((ahead < count).sum())


def _check(
    scores: NDArray[np.float64],
    truth: NDArray[Any],
    classes: Sequence[str],
    keys: Sequence[str],
    kind: str,
) -> None:
    check_outputs(scores, truth.size, classes, keys, kind)
    count = len(classes)
    outside: list[int] = np.flatnonzero((truth < 0) | (truth >= count)).tolist()
    if outside or not np.issubdtype(truth.dtype, np.integer):
        raise DataError(
            f"Labels are class numbers from 0 to {count - 1}; "
            f"{listed([f'{keys[i]} has {truth[i]}' for i in outside], 3) or truth.dtype} is not."
        )


def check_outputs(
    scores: NDArray[np.float64], labels: int, classes: Sequence[str], keys: Sequence[str], kind: str
) -> None:
    """Refuse outputs (N, K) without N labels and keys and K classes, or not what `kind` says.

    Raises DataError, or ModelError when one is not finite.
    """
    if scores.ndim != 2 or scores.shape[0] == 0:
        raise DataError(
            f"There is nothing to evaluate: outputs have shape {scores.shape}, "
            f"expected (samples, classes) with at least one sample."
        )
    samples, count = scores.shape
    if (samples, samples, count) != (labels, len(keys), len(classes)):
        raise DataError(
            f"{samples} outputs of {count} classes need as many labels ({labels}), "
            f"keys ({len(keys)}) and class names ({len(classes)})."
        )
    if len(set(classes)) != count:
        twice = sorted({name for name in classes if list(classes).count(name) > 1})
        raise DataError(f"Class names must differ, but {listed(twice, 3)} occur more than once.")
    bad: list[int] = np.flatnonzero(~np.isfinite(scores).all(axis=1)).tolist()
    if bad:
        raise ModelError(
            f"The model gives numbers that are not finite for {len(bad)} of {samples} samples "
            f"({listed([keys[i] for i in bad], 3)}); its weights are damaged or it diverged."
        )
    if kind not in ("logits", "probabilities"):
        raise DataError(f"kind is 'logits' or 'probabilities', not {kind!r}.")
    if kind == "probabilities" and (scores.min() < 0 or scores.max() > 1 + 1e-6):
        raise DataError(
            f"Probabilities lie between 0 and 1, these between {scores.min():.3g} and "
            f"{scores.max():.3g}; for logits say kind='logits'."
        )
