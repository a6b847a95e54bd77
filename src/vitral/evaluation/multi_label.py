"""The evaluation of a classifier whose images have any number of labels.

Each class is a question of its own, and named where its probability (the sigmoid of its logit) is
at least 0.5.

evaluation = evaluate_multi_label(logits, labels, classes, keys)    # (N, K), bool (N, K), K, N
evaluation.score, evaluation.interval                               # 0.71, (0.69, 0.73)
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitral.errors import DataError
from vitral.evaluation.intervals import Z_95, wilson
from vitral.evaluation.score import (
    MOST_CLASSES,
    ClassScore,
    ForeignShare,
    Prediction,
    Table,
    check_outputs,
    class_score,
    mistakes,
    share_line,
)
from vitral.wording import listed

COLUMNS = ("path", "labels", "predicted")  # of predictions.csv, and one for each class:
SCORE = "score of "  # and its name
PER_CLASS = ("support", "predicted", "correct", "average_precision", "precision", "recall", "f1")
_DRAWS = 200  # of the bootstrap; they tell its deviation to 5 %
_CHUNK = 4_000_000  # counts in memory at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiLabelEvaluation:
    """The `Score` of a classifier whose images have any number of labels.

    Attributes:
        classes: K names in the order of the logits.
        samples: N.
        mean_average_precision: mean of the average precisions of the classes with a positive.
        interval: its 95 % interval, ± 1.96 deviations of a seeded bootstrap over samples; of no
            width where the order is perfect.
        without_positives: classes that no sample has; they count in no mean of precisions.
        f1_micro, f1_macro: at 0.5, over all answers, and the mean over the classes that occur.
        accuracy: share of samples that got exactly their labels (exact match);
            accuracy_interval: its Wilson 95 % interval.
        loss: mean binary cross-entropy, in nats per label.
        per_class: one score per class.
        predictions: one per sample, in the order given.
        probabilities: (N, K).
        foreign: those among the samples that the model calls so; None where nothing tells.
        kind: of the task; headline: what `score` is called.
    """

    classes: tuple[str, ...]
    samples: int
    mean_average_precision: float
    interval: tuple[float, float]
    without_positives: tuple[str, ...]
    f1_micro: float
    f1_macro: float
    accuracy: float
    accuracy_interval: tuple[float, float]
    loss: float
    per_class: tuple[ClassScore, ...]
    predictions: tuple[Prediction, ...] = field(repr=False)
    probabilities: NDArray[np.float32] = field(repr=False)
    kind: Literal["multi_label"] = "multi_label"
    headline: Literal["mean average precision"] = "mean average precision"
    foreign: ForeignShare | None = None

    @property
    def score(self) -> float:
        """The number that weights are compared by, 0 to 1; `interval` is its interval."""
        return self.mean_average_precision

    @property
    def measures(self) -> Mapping[str, float]:
        """Further numbers that metrics.jsonl and model.json keep, by name."""
        return {"accuracy": self.accuracy}

    def mistakes(self, most: int | None = None) -> list[int]:
        """Indices of the samples with a wrong label, the surest errors first; at most `most`."""
        return mistakes(self.predictions, most)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the predictions (those go to predictions.csv)."""
        return {
            "mean_average_precision": self.mean_average_precision,
            "interval": list(self.interval),
            "samples": self.samples,
            "loss": self.loss,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "f1_micro": self.f1_micro,
            "f1_macro": self.f1_macro,
            "without_positives": list(self.without_positives),
            "classes": list(self.classes),
            "per_class": [_class_values(score) for score in self.per_class],
            **({} if self.foreign is None else {"called_foreign": asdict(self.foreign)}),
        }

    def csv_rows(self) -> Iterator[Iterable[str]]:
        """The header and the rows of predictions.csv."""
        yield *COLUMNS, *(SCORE + name for name in self.classes)
        for answer, scores in zip(self.predictions, self.probabilities, strict=True):
            names = joined(answer.labels), joined(answer.predicted)
            yield answer.key, *names, *(f"{score:.6g}" for score in scores.tolist())

    def lines(self) -> Iterator[str | Table]:
        """Write for a terminal the scores, and each class (the worst of many)."""
        scored = len(self.classes) - len(self.without_positives)
        average = share_line("mean average precision", self.score, self.interval, 22)
        yield f"{average}  over {scored} of {len(self.classes)} classes"
        exact = round(self.accuracy * self.samples)
        match = share_line("exact match", self.accuracy, self.accuracy_interval, 22)
        yield f"{match}  {exact} of {self.samples}"
        f1 = f"micro {100 * self.f1_micro:.2f} %, macro {100 * self.f1_macro:.2f} %"
        yield f"{'F1 at 0.5':<22}  {f1}"
        if self.without_positives:
            yield f"{'not scored':<22}  {listed(self.without_positives, 3)}: no image has it"
        if self.foreign is not None:
            yield self.foreign.line(22)
        yield self._class_table()

    def _class_table(self) -> Table:
        """Every class, or the ones with the lowest average precision."""
        shown: Sequence[ClassScore] = self.per_class
        if len(shown) > MOST_CLASSES:
            shown = sorted(shown, key=lambda row: row.average_precision or 0.0)[:MOST_CLASSES]
        rows = []
        for row in shown:
            shares = (row.average_precision, row.precision, row.recall, row.f1)
            texts = ("-" if share is None else f"{100 * share:.1f} %" for share in shares)
            rows.append((row.name, f"{row.support:,}", *texts))
        headings = ("class", "images", "average precision", "precision", "recall", "F1")
        return Table(headings=headings, rows=tuple(rows))


def evaluate_multi_label(
    outputs: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    keys: Sequence[str],
    kind: Literal["logits", "probabilities"] = "logits",
    *,
    seed: int = 0,
) -> MultiLabelEvaluation:
    """Score the outputs of a classifier whose classes do not exclude each other.

    Args:
        outputs: (N, K) logits, or probabilities with kind="probabilities".
        labels: bool (N, K), which classes each sample has; a row may have none.
        classes: K distinct names in the order of the columns.
        keys: N names of the samples, usually their paths.
        kind: what `outputs` are.
        seed: of the bootstrap.

    Raises DataError when nothing has a label or the shapes do not fit, ModelError when an output
    is not finite.
    """
    scores = np.asarray(outputs, dtype=np.float64)
    truth = np.asarray(labels)
    check_outputs(scores, len(truth), classes, keys, kind)
    if truth.dtype != np.bool_ or truth.shape != scores.shape:
        raise DataError(
            f"Multi-label targets are true or false for each of {scores.shape[1]} classes, bool "
            f"{scores.shape}, not {truth.dtype} {truth.shape}."
        )
    if not truth.any():
        raise DataError(f"None of the {len(truth)} samples has a label; there is nothing to score.")
    if kind == "probabilities":
        inside = np.clip(scores, 1e-15, 1 - 1e-15)
        scores = np.log(inside) - np.log1p(-inside)
    given = scores >= 0
    probabilities = np.exp(-np.logaddexp(0, -scores))
    exact = int((truth == given).all(axis=1).sum())
    per_class = _class_scores(scores, truth, classes)
    averages = [row.average_precision for row in per_class if row.average_precision is not None]
    f1 = [score.f1 for score in per_class if score.f1 is not None]
    mean = float(np.mean(averages))
    half = Z_95 * _deviation(scores, truth, seed)
    correct = sum(score.correct for score in per_class)
    both = sum(score.support + score.predicted for score in per_class)
    return MultiLabelEvaluation(
        classes=tuple(classes),
        samples=len(truth),
        mean_average_precision=mean,
        interval=_interval(mean, half, len(truth)),
        without_positives=tuple(score.name for score in per_class if not score.support),
        f1_micro=2 * correct / both,
        f1_macro=float(np.mean(f1)),
        accuracy=exact / len(truth),
        accuracy_interval=wilson(exact, len(truth)),
        loss=float((np.logaddexp(0, scores) - truth * scores).mean()),
        per_class=per_class,
        predictions=_predictions(probabilities, given, truth, classes, keys),
        probabilities=probabilities.astype(np.float32),
    )


def average_precision(
    scores: NDArray[np.float64], truth: NDArray[np.bool_], counts: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Average precision of (N,) scores in each of B samples, (B,); NaN without a positive in it.

    The sum over thresholds of the rise in recall times the precision there, ties together, as
    scikit-learn has it. `counts` (N, B) says how often each counts; some of `truth` is true.
    """
    order = np.argsort(-scores, kind="stable")
    counts = counts[order]
    right = truth[order]
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    positives = right.cumsum()[ends]
    rises = np.diff(positives, prepend=0) > 0  # elsewhere recall stands still
    taken = counts.cumsum(axis=0, dtype=np.int32)[ends[rises]]
    hits = counts[right].cumsum(axis=0, dtype=np.int32)[positives[rises] - 1]
    area = (np.diff(hits, axis=0, prepend=0) * (hits / np.maximum(taken, 1))).sum(axis=0)
    result: NDArray[np.float64] = np.full(counts.shape[1], np.nan)
    return np.divide(area, hits[-1], out=result, where=hits[-1] > 0)


def _class_scores(
    scores: NDArray[np.float64], truth: NDArray[np.bool_], classes: Sequence[str]
) -> tuple[ClassScore, ...]:
    once = np.ones((len(truth), 1), np.int32)
    given = scores >= 0
    rows = []
    for k, name in enumerate(classes):
        support = int(truth[:, k].sum())
        correct = int((truth[:, k] & given[:, k]).sum())
        average = average_precision(scores[:, k], truth[:, k], once)[0] if support else None
        rows.append(
            class_score(
                name,
                support=support,
                predicted=int(given[:, k].sum()),
                correct=correct,
                average_precision=None if average is None else float(average),
            )
        )
    return tuple(rows)


def _interval(mean: float, half: float, samples: int) -> tuple[float, float]:
    if mean == 1.0:  # nothing is ranked wrongly: no spread to estimate, as if none ever could be
        return wilson(samples, samples)
    return max(0.0, mean - half), min(1.0, mean + half)


def _deviation(scores: NDArray[np.float64], truth: NDArray[np.bool_], seed: int) -> float:
    """The deviation of the mean average precision over samples drawn anew, with repetition.

    Its percentiles would not do for an interval: repeated samples lift every average precision.
    """
    samples = len(scores)
    random = np.random.default_rng(seed)
    means = []
    size = max(1, _CHUNK // samples)
    for start in range(0, _DRAWS, size):
        counts = np.empty((samples, min(size, _DRAWS - start)), np.int32)
        for column in range(counts.shape[1]):
            drawn = random.integers(0, samples, samples)
            counts[:, column] = np.bincount(drawn, minlength=samples)
        total = np.zeros(counts.shape[1])
        scored = np.zeros(counts.shape[1])
        for k in np.flatnonzero(truth.any(axis=0)):
            average = average_precision(scores[:, k], truth[:, k], counts)
            total += np.nan_to_num(average)
            scored += ~np.isnan(average)
        means.append(total[scored > 0] / scored[scored > 0])
    return float(np.concatenate(means).std())


def _predictions(
    probabilities: NDArray[np.float64],
    given: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    classes: Sequence[str],
    keys: Sequence[str],
) -> tuple[Prediction, ...]:
    error = np.where(given, probabilities, 1 - probabilities)
    worst = np.where(given != truth, error, 0.0).max(axis=1)

    def names(row: NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(classes[k] for k in np.flatnonzero(row).tolist())

    return tuple(
        Prediction(
            key=key, labels=names(truth[i]), predicted=names(given[i]), score=float(worst[i])
        )
        for i, key in enumerate(keys)
    )


def _class_values(score: ClassScore) -> dict[str, Any]:
    return {"name": score.name} | {name: getattr(score, name) for name in PER_CLASS}


def joined(names: Iterable[str]) -> str:
    """'cat|indoors', as a CSV file of labels has it; a name with a | in it is quoted."""
    text = io.StringIO()
    csv.writer(text, delimiter="|").writerow(names)
    return text.getvalue().removesuffix("\r\n")


def apart(text: str) -> list[str]:
    """The inverse of `joined`."""
    return next(csv.reader(io.StringIO(text, newline=""), delimiter="|"), [])
