"""The evaluation of a classifier whose classes exclude each other.

evaluation = evaluate_single_label(logits, labels, classes, keys)   # (N, K), (N,), K names, N paths
evaluation.accuracy, evaluation.interval                            # 0.9452, (0.9376, 0.9519)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitral.errors import DataError
from vitral.evaluation import calibration as calibrating
from vitral.evaluation.answer_sets import SetEvaluation
from vitral.evaluation.calibration import ReliabilityReport
from vitral.evaluation.class_tree import TreeEvaluation
from vitral.evaluation.intervals import macro_f1, wilson
from vitral.evaluation.score import (
    MOST_CLASSES,
    ClassScore,
    ForeignShare,
    Prediction,
    Table,
    check_outputs,
    class_score,
    lowest,
    mistakes,
    share_line,
)
from vitral.specs import Calibration
from vitral.wording import listed

COLUMNS = ("path", "label", "predicted", "score", "given")  # of predictions.csv
MOST_PAIRS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SingleLabelEvaluation:
    """The `Score` of a classifier whose classes exclude each other.

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
        sets: what the answer sets hold, where they were asked for.
        tree: the scores of groups of classes, where the model has them.
        foreign: those among the samples that the model calls so; None where nothing tells.
        kind: of the task; headline: what `score` is called.
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
    sets: SetEvaluation | None = None
    tree: TreeEvaluation | None = None
    kind: Literal["single_label"] = "single_label"
    headline: Literal["accuracy"] = "accuracy"
    foreign: ForeignShare | None = None

    @property
    def score(self) -> float:
        """The number that weights are compared by, 0 to 1; `interval` is its interval."""
        return self.accuracy

    @property
    def measures(self) -> Mapping[str, float]:
        """Further numbers that metrics.jsonl and model.json keep, by name."""
        return {"accuracy": self.accuracy}

    def mistakes(self, most: int | None = None) -> list[int]:
        """Indices of the wrongly predicted samples, the most confident first; at most `most`."""
        return mistakes(self.predictions, most)

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
            "per_class": [_class_values(score) for score in self.per_class],
            **({} if self.foreign is None else {"called_foreign": asdict(self.foreign)}),
            "confusion": self.confusion.tolist(),
            "calibration": self.reliability.to_dict(),
            **({} if self.tree is None else {"tree": self.tree.to_dict()}),
            **({} if self.sets is None else {"sets": self.sets.to_dict()}),
        }

    def csv_rows(self) -> Iterator[Iterable[str]]:
        """The header and the rows of predictions.csv."""
        return csv_rows(self.predictions)

    def lines(self) -> Iterator[str | Table]:
        """Write for a terminal the scores, each class (the worst of many), and the confusions."""
        accuracy = share_line("accuracy", self.accuracy, self.interval, 9)
        yield f"{accuracy}  {self.correct:,} of {self.samples:,}"
        if self.top5 is not None and self.top5_interval is not None:
            yield share_line("top-5", self.top5, self.top5_interval, 9)
        yield share_line("macro F1", self.macro_f1, self.macro_f1_interval, 9)
        yield from self.reliability.lines()
        if self.tree is not None:
            yield from self.tree.lines()
        if self.sets is not None:
            yield from self.sets.lines()
        if self.foreign is not None:
            yield self.foreign.line(9)
        yield self._class_table()
        digits = len(str(max(len(self.classes) - 1, int(self.confusion.max()))))
        if len(self.classes) * (digits + 3) + 20 <= 80:  # narrower columns would hide the counts
            yield self._confusion_table()
            return
        confused = [
            (int(count), self.classes[truth], self.classes[guess])
            for truth, row in enumerate(self.confusion)
            for guess, count in enumerate(row)
            if truth != guess and count
        ]
        for count, label, answer in sorted(confused, reverse=True)[:MOST_PAIRS]:
            yield f"{count:5}  {label} taken for {answer}"

    def _class_table(self) -> Table:
        """Every class, or the ones with the lowest F1."""
        shown = lowest(self.per_class, lambda score: score.f1)
        title = "each class"
        if len(self.per_class) > MOST_CLASSES:
            title = f"the {len(shown)} classes of the lowest F1"
        return Table(
            title=f"{title}, with 95 % intervals",
            headings=("class", "images", "precision", "recall", "F1"),
            rows=tuple(
                (
                    score.name,
                    f"{score.support:,}",
                    _with_interval(score.precision, score.precision_interval),
                    _with_interval(score.recall, score.recall_interval),
                    "-" if score.f1 is None else f"{100 * score.f1:.1f} %",
                )
                for score in shown
            ),
        )

    def _confusion_table(self) -> Table:
        rows = zip(self.classes, self.confusion.tolist(), strict=True)
        return Table(
            title="confusion: rows are the truth",
            headings=("", *map(str, range(len(self.classes)))),
            rows=tuple((f"{i} {name}", *map(str, row)) for i, (name, row) in enumerate(rows)),
        )


def evaluate_single_label(
    outputs: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    keys: Sequence[str],
    kind: Literal["logits", "probabilities"] = "logits",
    calibration: Calibration | None = None,
    cross_fit: bool = False,
) -> SingleLabelEvaluation:
    """Score the outputs of a classifier whose classes exclude each other.

    Args:
        outputs: (N, K) logits, or probabilities with kind="probabilities" (rows need not sum to
            one, so sigmoid scores are welcome).
        labels: (N,) indices of the true class, 0 <= label < K.
        classes: K distinct names in the order of the columns.
        keys: N distinct names of the samples, usually their paths.
        kind: what `outputs` are; never guessed from the values.
        calibration: of the model; a temperature divides logits, so probabilities have none.
        cross_fit: whether these are the images that the calibration was fitted on: what it is worth
            is then measured by cross-fitting, since those images flatter it.

    Raises DataError without a sample or if lengths or labels do not fit, ModelError if not finite.
    """
    scores = np.asarray(outputs, dtype=np.float64)
    truth = np.asarray(labels)
    _check(scores, truth, classes, keys, kind)
    if kind == "probabilities" and calibration is not None:
        raise DataError("A temperature divides logits; give those, or leave the calibration out.")
    truth = truth.astype(np.int64)
    samples, count = scores.shape
    guess = scores.argmax(axis=1)
    row = np.arange(samples)
    pair = np.stack([guess, truth], axis=1)
    if kind == "logits":
        loss = float((calibrating.normaliser(scores) - scores[row, truth]).mean())
        temperature = 1.0 if calibration is None else calibration.temperature
        confidence = calibrating.probabilities(scores, pair, temperature)
        reliability = calibrating.report(scores, truth, keys, calibration, cross_fit=cross_fit)
    else:
        confidence = scores[row[:, None], pair]
        loss = float(-np.log(np.maximum(confidence[:, 1], 1e-300)).mean())
        reliability = calibrating.uncalibrated(confidence[:, 0], guess == truth)
    matrix = confusion_matrix(truth, guess, count)
    correct = int(np.trace(matrix))
    among_five = _among(scores, truth, 5) if count > 5 else None
    f1, f1_interval = macro_f1(matrix)
    return SingleLabelEvaluation(
        classes=tuple(classes),
        samples=samples,
        correct=correct,
        accuracy=correct / samples,
        interval=wilson(correct, samples),
        loss=loss,
        top5=None if among_five is None else among_five / samples,
        top5_interval=None if among_five is None else wilson(among_five, samples),
        macro_f1=f1,
        macro_f1_interval=f1_interval,
        per_class=class_scores(matrix, classes),
        confusion=matrix,
        reliability=reliability,
        predictions=_predictions(keys, classes, pair, confidence),
    )


def _predictions(
    keys: Sequence[str],
    classes: Sequence[str],
    pair: NDArray[np.int64],
    confidence: NDArray[np.float64],
) -> tuple[Prediction, ...]:
    """Of the predicted and the true class, (N, 2), and the probabilities of both."""
    alone = [(name,) for name in classes]
    rows = zip(keys, pair.tolist(), confidence.tolist(), strict=True)
    return tuple(
        Prediction(
            key=key,
            labels=alone[truth],
            predicted=alone[guess],
            score=score,
            label_probability=label_probability,
        )
        for key, (guess, truth), (score, label_probability) in rows
    )


def csv_rows(predictions: Iterable[Prediction]) -> Iterator[Iterable[str]]:
    """The header and the rows of predictions.csv."""
    yield COLUMNS
    for p in predictions:
        given = "" if p.label_probability is None else f"{p.label_probability:.6g}"
        yield p.key, p.label, p.answer, f"{p.score:.6f}", given


def confusion_matrix(truth: ArrayLike, guess: ArrayLike, count: int) -> NDArray[np.int64]:
    """(count, count) counts of (truth, prediction) pairs of class indices; rows are the truth."""
    pairs = np.asarray(truth, dtype=np.int64) * count + np.asarray(guess, dtype=np.int64)
    return np.bincount(pairs, minlength=count * count).reshape(count, count).astype(np.int64)


def class_scores(confusion: NDArray[np.int64], classes: Sequence[str]) -> tuple[ClassScore, ...]:
    """One ClassScore per class from a (K, K) confusion matrix (rows are the truth)."""
    columns = zip(
        classes, confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal(), strict=True
    )
    return tuple(class_score(name, int(s), int(p), int(c)) for name, s, p, c in columns)


def _among(scores: NDArray[np.float64], truth: NDArray[np.int64], count: int) -> int:
    """Samples whose truth is among the `count` highest.

    Ties go to the lower index, as in argmax, so that top-1 never exceeds top-5.
    """
    true_scores = scores[np.arange(len(truth)), truth][:, None]
    before = np.arange(scores.shape[1]) < truth[:, None]
    ahead = (scores > true_scores).sum(axis=1) + ((scores == true_scores) & before).sum(axis=1)
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


def _class_values(score: ClassScore) -> dict[str, Any]:
    values = asdict(score)
    del values["average_precision"]
    return values


def _with_interval(share: float | None, interval: tuple[float, float] | None) -> str:
    if share is None or interval is None:
        return "-"
    low, high = (100 * bound for bound in interval)
    return f"{100 * share:.1f} % ({low:.1f} to {high:.1f})"
