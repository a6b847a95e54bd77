"""The surface that every evaluation has, whatever was evaluated, and the values they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitral.errors import DataError, ModelError
from vitral.evaluation.intervals import wilson
from vitral.wording import listed

MOST_CLASSES = 20  # that a table on a terminal lists

Each = TypeVar("Each")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The answer for one sample.

    Attributes:
        key: its name, usually its path.
        labels: the classes it has: one in a single-label task, any number in a multi-label task.
        predicted: the classes it was given, in the order of the classes.
        score: how sure the model was. Single-label: the probability of the predicted class.
            Multi-label: that of the worst error, which is the probability of a class that was
            given wrongly or 1 - that of one that was missed; 0 without an error.
        label_probability: the probability of the label of a single-label task; None where it is
            not known.
    """

    key: str
    labels: tuple[str, ...]
    predicted: tuple[str, ...]
    score: float
    label_probability: float | None = None

    @property
    def correct(self) -> bool:
        """True where it was given exactly the classes it has."""
        return self.labels == self.predicted

    @property
    def label(self) -> str:
        """The class it has; of a multi-label task the names with commas between."""
        return ", ".join(self.labels)

    @property
    def answer(self) -> str:
        """The class it was given; of a multi-label task the names with commas between."""
        return ", ".join(self.predicted)


def mistakes(predictions: Sequence[Prediction], most: int | None = None) -> list[int]:
    """Indices of the predictions that are not correct, the surest first; at most `most`."""
    wrong = [i for i, prediction in enumerate(predictions) if not prediction.correct]
    return sorted(wrong, key=lambda i: -predictions[i].score)[:most]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """The scores of one class.

    Attributes:
        name: the class.
        support: samples that have it; predicted: samples that were given it.
        correct: samples that have it and were given it.
        precision: correct / predicted; precision_interval: its Wilson 95 % interval. None when it
            was never predicted.
        recall: correct / support; recall_interval: its Wilson 95 % interval. None without support.
        f1: harmonic mean of precision and recall; None when it never occurs on either side.
        average_precision: area under precision over recall, as steps; None without support, and
            in single-label tasks.
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
    average_precision: float | None = None


def class_score(
    name: str, support: int, predicted: int, correct: int, average_precision: float | None = None
) -> ClassScore:
    """The scores that follow from the counts of one class."""
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
        average_precision=average_precision,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table on a terminal: names at the left that may wrap, numbers at the right that do not."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str | None = None


def lowest(classes: Sequence[Each], value: Callable[[Each], float | None]) -> list[Each]:
    """Return the classes that a table has room for: all, or those of the lowest value there is."""
    if len(classes) <= MOST_CLASSES:
        return list(classes)
    known = [each for each in classes if value(each) is not None]
    return sorted(known, key=lambda each: value(each) or 0.0)[:MOST_CLASSES]


class Score(Protocol):
    """An evaluation, of whatever kind: weights are chosen, kept and shown by what is asked here.

    A single-label and a multi-label evaluation are such, and so may be one that is no accuracy,
    such as a loss set against a baseline: it has no predictions and no CSV rows.
    """

    @property
    def headline(self) -> str:
        """The name of the score, such as "accuracy"."""

    @property
    def score(self) -> float:
        """The number that weights are compared by, at most 1; the higher the better."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `score`."""

    @property
    def samples(self) -> int:
        """The number of samples that were evaluated."""

    @property
    def loss(self) -> float:
        """The mean loss."""

    @property
    def measures(self) -> Mapping[str, float]:
        """Further numbers that metrics.jsonl and model.json keep, by name."""

    @property
    def predictions(self) -> Sequence[Prediction]:
        """One per sample, in the order given."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the predictions."""

    def lines(self) -> Iterator[str | Table]:
        """Write the scores for a terminal."""

    def csv_rows(self) -> Iterator[Iterable[str]]:
        """The header and the rows of predictions.csv."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignShare:
    """The images that a model calls foreign among those that it is scored on.

    Attributes:
        count: how many; share: of all, and its Wilson 95 % interval.
    """

    count: int
    share: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, count: int, samples: int) -> ForeignShare:
        """Count them among so many samples."""
        return cls(count=count, share=count / samples, interval=wilson(count, samples))

    def line(self, width: int) -> str:
        """Write it for a terminal, the name padded to `width`."""
        return f"{share_line('foreign', self.share, self.interval, width)}  called so among these"


def share_line(name: str, share: float, interval: tuple[float, float], width: int) -> str:
    """'accuracy   94.52 %  (95 %: 93.76 to 95.19)', the name padded to `width`."""
    low, high = (100 * bound for bound in interval)
    return f"{name:<{width}}  {100 * share:.2f} %  (95 %: {low:.2f} to {high:.2f})"


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
