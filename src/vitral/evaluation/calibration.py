"""Calibration: a temperature for the probabilities, and a threshold to believe answers from.

calibration = fit(logits, labels)              # of validation images: Calibration(temperature, ...)
scored = report(logits, labels, keys, calibration)
scored.before.ece, scored.after.ece            # 0.12, 0.02
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitral.specs import Calibration

Floats = NDArray[np.float64]

TEMPERATURES = (0.05, 20.0)  # the lowest and the highest that are looked at
AIM = 0.95  # share of right answers among the confident ones; more where most are right
FOLDS = 5
_SHARE = 0.1  # of the images, answered at least where the aim is out of reach
_FEW = 20  # answers that show that it is reached, or that share of few images
_POINTS = 101  # of a curve
_CHUNK = 1 << 16  # numbers at a time: they stay in the cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """The answers whose probability lies in (low, high]: how many, how sure, how often right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """The expected calibration error, and the reliability diagram: its bins that hold answers."""

    ece: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReliabilityReport:
    """The reliability of the probabilities of an evaluation, before and after the temperature.

    Attributes:
        calibration: of the model; None where nothing was fitted, and so are `after`, `coverage`
            and `accuracy_when_sure`.
        cross_fitted: whether these are the very images that it was fitted on. All that follows but
            `before` was then computed for each fifth of them with what the others gave.
        before, after: without and with the temperature.
        coverage: share of the answers that are confident, at least the threshold.
        accuracy_when_sure: share of those that are right; None where none is confident.
        curve: (threshold, coverage, accuracy), rising in the threshold, as `curve` has it.
    """

    calibration: Calibration | None
    cross_fitted: bool
    before: Reliability
    after: Reliability | None
    coverage: float | None
    accuracy_when_sure: float | None
    curve: tuple[tuple[float, float, float], ...]

    def lines(self) -> Iterator[str]:
        """Write for a terminal how far from the truth they are, and how many are confident."""
        before = f"ECE        {100 * self.before.ece:.2f}"
        unit = "points between the probabilities and the truth"
        fitted = self.calibration
        if fitted is None or self.after is None or self.coverage is None:
            yield f"{before} {unit}; they are not calibrated"
            return
        crossed = ", cross-fitted" if self.cross_fitted else ""
        yield (
            f"{before} -> {100 * self.after.ece:.2f} {unit}, before and after temperature "
            f"{fitted.temperature:.3g}{crossed}"
        )
        accuracy = self.accuracy_when_sure
        correct = "" if accuracy is None else f", {100 * accuracy:.1f} % of those right"
        yield (
            f"sure       {100 * self.coverage:.1f} % of the images{correct}{crossed}; the "
            f"probability is at least {fitted.threshold:.3f}, chosen for "
            f"{100 * fitted.target:.1f} %"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        fitted = self.calibration
        return {
            "temperature": None if fitted is None else fitted.temperature,
            "threshold": None if fitted is None else fitted.threshold,
            "target": None if fitted is None else fitted.target,
            "cross_fitted": self.cross_fitted,
            "before": asdict(self.before),
            "after": None if self.after is None else asdict(self.after),
            "coverage": self.coverage,
            "accuracy_when_sure": self.accuracy_when_sure,
            "curve": [list(point) for point in self.curve],
        }


def normaliser(logits: Floats, temperature: float = 1.0) -> Floats:
    """log Σ exp(logit / temperature) over the classes: (N, K) -> (N,)."""
    total = np.empty(len(logits))
    rows = max(1, _CHUNK // logits.shape[1])
    for start in range(0, len(logits), rows):
        part = logits[start : start + rows]
        most = part.max(axis=1, keepdims=True)
        summed = np.exp((part - most) / temperature).sum(axis=1)
        total[start : start + rows] = most[:, 0] / temperature + np.log(summed)
    return total


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature of least mean cross-entropy (Guo et al. 2017), within [0.05, 20].

    Where every answer is right, the lower the better, and no number of images could justify it:
    each label is then taken to be wrong once in N + 2 times (Platt 1999). Logits that tell nothing
    apart, and a single class, leave 1.

    Args:
        logits: (N, K); labels: (N,) indices of the true class.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - half a second

    scores = np.asarray(logits, np.float64)
    truth = np.asarray(labels, np.int64)
    samples, count = scores.shape
    if samples == 0 or not np.ptp(scores, axis=1).any():
        return 1.0
    true_scores = scores[np.arange(samples), truth]
    others = (scores.sum(axis=1) - true_scores) / max(count - 1, 1)
    doubt = 1 / (samples + 2) if (true_scores == scores.max(axis=1)).all() else 0.0
    wanted = ((1 - doubt) * true_scores + doubt * others).mean()
    best = minimize_scalar(
        lambda power: normaliser(scores, math.exp(power)).mean() - wanted / math.exp(power),
        bounds=(math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1])),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return round(math.exp(best.x), 4)


def probabilities(logits: Floats, classes: NDArray[np.int64], temperature: float = 1.0) -> Floats:
    """The probabilities of M classes of each sample: (N, K) logits, (N, M) indices -> (N, M)."""
    chosen = np.take_along_axis(logits, classes, axis=1) / temperature
    result: Floats = np.exp(chosen - normaliser(logits, temperature)[:, None])
    return result


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """The probabilities of all classes: (N, K) -> (N, K)."""
    result: Floats = np.exp(logits / temperature - normaliser(logits, temperature)[:, None])
    return result


def confidences(logits: Floats, temperature: float = 1.0) -> Floats:
    """The probability of the most probable class: (N, K) -> (N,)."""
    return probabilities(logits, logits.argmax(axis=1)[:, None], temperature)[:, 0]


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = 15) -> Reliability:
    """The expected calibration error over bins of equal width (Guo et al. 2017, equation 3).

    Args:
        confidence: (N,) probabilities of the answers; right: (N,) whether each is right.
    """
    scores = np.asarray(confidence, np.float64)
    hits = np.asarray(right, bool)
    edges = np.arange(bins + 1) / bins
    number = np.searchsorted(edges[1:-1], scores, side="left")  # a bin has its upper edge
    counts = np.bincount(number, minlength=bins)
    score_sums = np.bincount(number, scores, minlength=bins)
    hit_sums = np.bincount(number, hits, minlength=bins)
    filled = [
        Bin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            count=int(counts[i]),
            confidence=float(score_sums[i] / counts[i]),
            accuracy=float(hit_sums[i] / counts[i]),
        )
        for i in np.flatnonzero(counts)
    ]
    gaps = float(np.abs(score_sums - hit_sums).sum())
    return Reliability(ece=gaps / max(len(scores), 1), bins=tuple(filled))


def curve(
    confidence: ArrayLike, right: ArrayLike, points: int = _POINTS
) -> tuple[tuple[float, float, float], ...]:
    """(threshold, coverage, accuracy) of answering only from a confidence on, rising in it.

    Answers of the same confidence come in together. The first point answers everything; of more
    points than asked for, those that cover evenly many images are kept.
    """
    values, answered, hits = _from_on(confidence, right)
    if not len(values):
        return ()
    wanted = np.linspace(answered[0], answered[-1], points)
    indices = np.unique(np.searchsorted(answered, wanted))[::-1]
    coverage = answered[indices] / answered[-1]
    accuracy = hits[indices] / answered[indices]
    return tuple(zip(values[indices].tolist(), coverage.tolist(), accuracy.tolist(), strict=True))


def threshold(confidence: ArrayLike, right: ArrayLike, target: float) -> tuple[float, float]:
    """The smallest confidence from which on at least `target` of the answers are right.

    A handful of sure answers that happen to be right shows nothing: 20 have to be, or a tenth of
    fewer than 200. Where no confidence is enough: the one with the most right among those that
    still answer a tenth of the images. Returned with the share of right answers that it was chosen
    for: `target`, or less.
    """
    values, answered, hits = _from_on(confidence, right)
    share = hits / answered
    tenth = _SHARE * answered[-1]
    shown = (hits >= target * answered - 1e-9) & (answered >= min(_FEW, tenth))
    reached = np.flatnonzero(shown)
    if len(reached):
        return float(values[reached[-1]]), target
    enough = np.flatnonzero(answered >= tenth)
    best = enough[np.flatnonzero(share[enough] == share[enough].max())[-1]]
    return float(values[best]), float(share[best])


def _from_on(confidence: ArrayLike, right: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Each confidence that occurs, the highest first; how many answers have it or more; right."""
    scores = np.asarray(confidence, np.float64)
    hits = np.asarray(right, bool)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)[: len(scores)])
    return scores[order][ends], (ends + 1).astype(np.float64), hits[order].cumsum()[ends] * 1.0


def fit(logits: ArrayLike, labels: ArrayLike) -> Calibration:
    """Temperature and threshold of a model from what it says of validation images.

    The confident answers are to be right 95 times in 100, and half as often wrong as all where
    that asks for more. A model that is never right is confident of nothing.

    Args:
        logits: (N, K), N >= 1; labels: (N,) indices of the true class.
    """
    scores = np.asarray(logits, np.float64)
    truth = np.asarray(labels, np.int64)
    temperature = fit_temperature(scores, truth)
    right = scores.argmax(axis=1) == truth
    error = 1 - float(right.mean())
    aim = max(AIM, 1 - error / 2)
    least, target = threshold(confidences(scores, temperature), right, aim)
    if not target:
        least = 1.0
        target = aim
    return Calibration(
        temperature=temperature,
        threshold=math.floor(least * 1e6) / 1e6,  # another rounding loses none of the confident
        target=round(target, 6),
        samples=len(truth),
    )


def report(
    logits: Floats,
    labels: NDArray[np.int64],
    keys: Sequence[str],
    calibration: Calibration | None,
    *,
    cross_fit: bool = False,
) -> ReliabilityReport:
    """Measure what the calibration of a model is worth on these images.

    Args:
        logits: (N, K); labels: (N,) indices of the true class; keys: N names, which decide the
            folds, so that the order of the images does not.
        calibration: of the model, if there is one; cross_fit: whether it was fitted on these
            images.
    """
    right = logits.argmax(axis=1) == labels
    plain = confidences(logits)
    if calibration is None:
        return uncalibrated(plain, right)
    crossed = cross_fit and len(labels) > 1
    if crossed:
        confidence, confident = _cross_fitted(logits, labels, keys)
    else:
        confidence = confidences(logits, calibration.temperature)
        confident = confidence >= calibration.threshold
    return ReliabilityReport(
        calibration=calibration,
        cross_fitted=crossed,
        before=reliability(plain, right),
        after=reliability(confidence, right),
        coverage=float(confident.mean()),
        accuracy_when_sure=float(right[confident].mean()) if confident.any() else None,
        curve=curve(confidence, right),
    )


def uncalibrated(confidence: Floats, right: NDArray[np.bool_]) -> ReliabilityReport:
    """The report of probabilities as they are; `confidence` (N,) of the answers."""
    return ReliabilityReport(
        calibration=None,
        cross_fitted=False,
        before=reliability(confidence, right),
        after=None,
        coverage=None,
        accuracy_when_sure=None,
        curve=curve(confidence, right),
    )


def folds(keys: Sequence[str]) -> NDArray[np.int64]:
    """Deal N samples into fifths by their names, whatever their order: (N,) numbers from 0."""
    place = np.empty(len(keys), np.int64)
    place[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    return place % min(FOLDS, max(len(keys), 1))


def _cross_fitted(
    logits: Floats, labels: NDArray[np.int64], keys: Sequence[str]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Confidences, and which are confident, by what each fifth's other four fifths gave."""
    fold = folds(keys)
    confidence = np.empty(len(labels))
    confident = np.empty(len(labels), bool)
    for number in np.unique(fold):
        inside = fold == number
        fitted = fit(logits[~inside], labels[~inside])
        confidence[inside] = confidences(logits[inside], fitted.temperature)
        confident[inside] = confidence[inside] >= fitted.threshold
    return confidence, confident
