"""Probes of frozen features: heads that are solved for at once, and nearest neighbours.

weight, bias = least_squares(features, labels, classes)   # the paper's few-shot probe
weight, bias = logistic(features, labels, classes)        # regression, the penalty chosen
answers(test, (weight, bias))                             # (M,) class numbers
nearest(features, labels, test)                           # (M,), by the vote of neighbours
"""
# ruff: noqa: PLC0415 - scikit-learn takes seconds to import, which a probe alone should pay

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitral.errors import DataError, ModelError, UsageError
from vitral.evaluation.intervals import wilson

ProbeKind = Literal["fewshot", "knn", "linear"]
SHOTS = (1, 5, 10, 25)
SEEDS = 3

BIAS_FEATURE = 100.0  # so large that the penalty hardly touches the bias
PENALTY = 2.0**10
NEIGHBOURS = 20  # and the temperature of their votes: of DINO (Caron et al. 2021)
TEMPERATURE = 0.07

# of features with unit deviation divided by the root of their number: a row has a norm of about 1
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
USUAL = 10.0  # where there are too few images to choose
FOLDS = 3
MOST_TO_CHOOSE = 3000  # images that the choice is made with
ABSENT = -10.0  # from the mean logit to that of a class without an image

_ROWS = 4096  # of which the scores are computed at a time

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Head = tuple[NDArray[Any], NDArray[Any]]  # (K, D) and (K,): features @ weight.T + bias


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeScore:
    """The accuracy that one setting of a probe reached.

    Attributes:
        shots: training images per class; None for all there are.
        accuracies: one per draw of the training images.
        accuracy: their mean.
        interval: of the mean, 95 %: of so many test images (Wilson) and so many draws (Student's
            t), the two distances added in squares.
    """

    shots: int | None
    accuracies: tuple[float, ...]
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """The result of a probe.

    Attributes:
        kind: which probe.
        classes: K of the data; the model's own do not matter.
        support: training images that were looked at; samples: test images.
        scores: one per number of shots, ascending; a single one for the other probes.
        notes: what was left out, in sentences.
    """

    kind: ProbeKind
    classes: int
    support: int
    samples: int
    scores: tuple[ProbeScore, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; accuracy and interval are those of the most shots."""
        best = self.scores[-1]
        return {
            "probe": self.kind,
            "accuracy": best.accuracy,
            "interval": list(best.interval),
            "samples": self.samples,
            "support": self.support,
            "classes": self.classes,
            "scores": [asdict(score) for score in self.scores],
            "notes": list(self.notes),
        }


def probe_lines(result: ProbeResult) -> Iterator[str]:
    """Write the result of a probe for a terminal."""
    yield (
        f"{result.kind:<9} {result.classes:,} classes, {result.support:,} training images, "
        f"{result.samples:,} test images"
    )
    for score in result.scores:
        shots = score.shots
        name = "accuracy" if shots is None else "1 shot" if shots == 1 else f"{shots} shots"
        low, high = (100 * bound for bound in score.interval)
        draws = ", ".join(f"{100 * accuracy:.2f}" for accuracy in score.accuracies)
        each = f"  draws: {draws}" if len(score.accuracies) > 1 else ""
        yield f"{name:<9} {100 * score.accuracy:.2f} %  (95 %: {low:.2f} to {high:.2f}){each}"
    yield from result.notes


def probe_score(accuracies: Sequence[float], samples: int, shots: int | None = None) -> ProbeScore:
    """The mean of draws that were all tested on the same `samples` images, and its interval."""
    from scipy.special import stdtrit

    mean = float(np.mean(accuracies))
    draws = len(accuracies)
    low, high = wilson(round(mean * samples), samples)
    spread = 0.0
    if draws > 1:
        spread = float(stdtrit(draws - 1, 0.975) * np.std(accuracies, ddof=1)) / math.sqrt(draws)
    return ProbeScore(
        shots=shots,
        accuracies=tuple(map(float, accuracies)),
        accuracy=mean,
        interval=(
            max(0.0, mean - math.hypot(mean - low, spread)),
            min(1.0, mean + math.hypot(high - mean, spread)),
        ),
    )


def possible_shots(
    labels: Labels, classes: Sequence[str], shots: Sequence[int]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The shots for which every class has images, ascending, and a sentence on the others.

    Raises UsageError for shots that are no count, DataError where none of them is possible.
    """
    if not shots or min(shots) < 1:
        raise UsageError(f"Shots are images per class, at least 1, not {tuple(shots)}.")
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    fewest = int(counts.argmin())
    most = int(counts[fewest])
    requested = sorted(set(shots))
    possible = tuple(count for count in requested if count <= most)
    without = [str(count) for count in requested if count > most]
    images = "image" if most == 1 else "images"
    reason = f"class '{classes[fewest]}' has {most} readable training {images}"
    if not possible:
        raise DataError(
            f"{', '.join(without)} shots per class are not possible: {reason}. Add images to it"
            + (f", or ask for at most {most} shots." if most else ", or remove the class.")
        )
    note = f"{' and '.join(without)} shots are left out: {reason}."
    return possible, ((note,) if without else ())


def supports(
    labels: Labels, classes: int, shots: Sequence[int], seed: int
) -> dict[int, NDArray[np.int64]]:
    """Draw, for each number of shots, the rows of so many images of each class.

    Each class is permuted once and its first images are taken, so that more shots hold the fewer.
    A label below 0 is never drawn.
    """
    random = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(classes + 1))
    drawn = [random.permutation(order[start:end]) for start, end in pairwise(ends)]
    return {count: np.concatenate([rows[:count] for rows in drawn]) for count in shots}


def least_squares(features: Features, labels: Labels, classes: int) -> Head:
    """The paper's few-shot head for raw features, (K, D) and (K,), in float64.

    Ridge regression in closed form, as the authors' code has it: features standardised by the
    images learnt from (deviation + 1e-5), a constant BIAS_FEATURE beside them, targets -1 and 1,
    PENALTY whatever their number. (X'X + λI)⁻¹X'Y, or where the images are fewer than the columns
    X'(XX' + λI)⁻¹Y, which is the same.

    Args:
        features: (N, D); labels: (N,); classes: K.

    Raises DataError without an image, ModelError for features that are not finite.
    """
    mean, deviation = _moments(features)
    deviation = deviation + 1e-5
    x = np.full((len(features), features.shape[1] + 1), BIAS_FEATURE)
    x[:, :-1] = (features - mean) / deviation
    y = np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    if len(x) >= x.shape[1]:
        solved = np.linalg.solve(x.T @ x + PENALTY * np.eye(x.shape[1]), x.T @ y)
    else:
        solved = x.T @ np.linalg.solve(x @ x.T + PENALTY * np.eye(len(x)), y)
    weight = solved[:-1].T / deviation
    return weight, BIAS_FEATURE * solved[-1] - weight @ mean


def answers(features: Features, head: Head) -> Labels:
    """(M,) class numbers that a head gives to features (M, D)."""
    weight, bias = head
    parts = [features[i : i + _ROWS] @ weight.T + bias for i in range(0, len(features), _ROWS)]
    return np.concatenate([part.argmax(axis=1) for part in parts])


def nearest(support: Features, labels: Labels, test: Features) -> Labels:
    """(M,) class numbers by the vote of the 20 nearest of (N, D) features, or of all if fewer.

    Nearest by the cosine s; each votes with exp(s / 0.07), as in DINO (Caron et al. 2021).
    """
    from sklearn.neighbors import KNeighborsClassifier

    _moments(support)
    model = KNeighborsClassifier(
        min(NEIGHBOURS, len(support)), weights=_votes, metric="cosine", algorithm="brute"
    )
    answered: Labels = model.fit(support, labels).predict(test)
    return answered


def _votes(distances: NDArray[Any]) -> NDArray[Any]:
    return np.exp((1 - distances) / TEMPERATURE)


def logistic(features: Features, labels: Labels, classes: int) -> tuple[Features, Features]:
    """The weight (classes, D) and bias (classes,), float32, of a head for raw features.

    Multinomial logistic regression, penalised by the squared weights of standardised features; how
    much decides the likelihood of images left out (3 stratified folds), where at least two classes
    have three images. A class without an image stays far below the mean of the others. The same
    input gives the same head.

    Args:
        features: (N, D), what the head reads of each image.
        labels: (N,) class numbers.
        classes: K; the labels may lack some.

    Raises DataError without an image, ModelError for features that are not finite.
    """
    mean, deviation = _moments(features)
    # what varies by rounding alone would be blown up to noise
    flat = deviation <= 1e-6 * (np.abs(mean) + deviation.max())
    scale = np.where(flat, 0.0, 1 / np.where(flat, 1.0, deviation)) / features.shape[1] ** 0.5
    inputs = (features - mean.astype(np.float32)) * scale.astype(np.float32)
    present, numbers = np.unique(labels, return_inverse=True)
    solved = np.zeros((len(present), features.shape[1])), np.zeros(len(present))
    if len(present) > 1:
        solved = _fit(inputs, numbers, _strength(inputs, numbers))
    weight = np.repeat(solved[0].mean(axis=0, keepdims=True), classes, axis=0)
    bias = np.full(classes, solved[1].mean() + ABSENT)
    weight[present], bias[present] = solved
    weight *= scale
    bias -= weight @ mean
    return weight.astype(np.float32), bias.astype(np.float32)


def _moments(features: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation (D,) of (N, D)."""
    if len(features) == 0:
        raise DataError("A head cannot be solved without images; give some of each class.")
    mean = features.mean(axis=0, dtype=np.float64)
    deviation = features.std(axis=0, dtype=np.float64)
    if not np.isfinite(deviation).all():
        raise ModelError("The features are not finite: the weights to start from are damaged.")
    return mean, deviation


def _strength(inputs: Features, numbers: Labels) -> float:
    """The C under which images left out are most likely; classes of few images only train."""
    chosen = _some(numbers)
    inputs = inputs[chosen]
    numbers = numbers[chosen]
    enough = np.flatnonzero(np.bincount(numbers)[numbers] >= FOLDS)
    if len(np.unique(numbers[enough])) < 2:
        return USUAL
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    losses = np.zeros(len(STRENGTHS))
    for _, position in folds.split(enough, numbers[enough]):
        held = enough[position]
        train = np.setdiff1d(np.arange(len(numbers)), held)
        for i, strength in enumerate(STRENGTHS):
            weight, bias = _fit(inputs[train], numbers[train], strength)
            logits = inputs[held] @ weight.T + bias
            logits -= logits.max(axis=1, keepdims=True)
            true = logits[np.arange(len(held)), numbers[held]]
            losses[i] += float((np.log(np.exp(logits).sum(axis=1)) - true).sum())
    return STRENGTHS[int(losses.argmin())]


def _some(numbers: Labels) -> Labels:
    """All rows, or MOST_TO_CHOOSE at random, in order."""
    if len(numbers) <= MOST_TO_CHOOSE:
        return np.arange(len(numbers))
    random = np.random.default_rng(0)
    return np.sort(random.choice(len(numbers), MOST_TO_CHOOSE, replace=False))


def _fit(
    inputs: Features, numbers: Labels, strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight (classes, D) and bias (classes,) for classes 0, 1, ... that all have images."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=200, tol=1e-5)
    with warnings.catch_warnings():  # after so many steps the rest changes no answer
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(inputs, numbers)
    weight = model.coef_.astype(np.float64)
    bias = model.intercept_.astype(np.float64)
    if len(weight) == 1:  # of two classes, the logit of the second over the first
        return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
