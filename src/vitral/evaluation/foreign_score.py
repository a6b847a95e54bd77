"""Scores of telling foreign images from own ones, with intervals, beside the largest probability.

score = score_foreign(detector, own, foreign)     # Signals of either
score.distance.auroc, score.distance.accepted     # 0.98, the share of foreign images let pass
score.probability.accepted                        # the same share by the largest probability
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.evaluation.foreign import KEPT, ForeignDetector
from vitral.evaluation.intervals import Z_95, wilson
from vitral.evaluation.score import share_line

Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Signals:
    """The signs by which images may be told as foreign.

    Attributes:
        distances: (N,) of a ForeignDetector; foreign above 1.
        confidences: (N,) the probabilities of the answers.
    """

    distances: Floats
    confidences: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionScore:
    """The score of one sign of foreign images.

    Attributes:
        auroc: the share of pairs in which the foreign image looks more foreign than the own one.
        auroc_interval: its 95 % interval (DeLong et al. 1988).
        accepted: share of the foreign images on the own side of the limit, and its Wilson interval.
        kept: share of the own images there, and its Wilson interval.
    """

    auroc: float
    auroc_interval: Interval
    accepted: float
    accepted_interval: Interval
    kept: float
    kept_interval: Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignScore:
    """The score of telling some foreign images.

    Attributes:
        own, foreign: how many images of either kind there were.
        distance: by how far the features lie, the limit being the model's own.
        probability: by the largest probability, the limit being what KEPT of the held-out images of
            the fit reach.
        surely_answered: share of the foreign images that are sure and not foreign, and its Wilson
            interval; None without a threshold. surely_answered_before: those that are sure alone.
    """

    own: int
    foreign: int
    distance: DetectionScore
    probability: DetectionScore
    surely_answered: float | None
    surely_answered_interval: Interval | None
    surely_answered_before: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"at": KEPT} | asdict(self)

    def lines(self) -> Iterator[str]:
        """Write for a terminal how well foreign images are told."""
        yield f"foreign    {self.foreign:,} foreign images beside {self.own:,} own"
        for name, score in (
            ("by the distance of features", self.distance),
            ("by the largest probability", self.probability),
        ):
            low, high = score.auroc_interval
            yield f"  {name}: AUROC {score.auroc:.4f}  (95 %: {low:.4f} to {high:.4f})"
            taken = share_line("foreign taken for own", score.accepted, score.accepted_interval, 21)
            kept = share_line("own kept", score.kept, score.kept_interval, 21)
            yield from (f"    {taken}", f"    {kept}")
        if self.surely_answered is not None and self.surely_answered_before is not None:
            yield (
                f"  {100 * self.surely_answered:.1f} % of the foreign images get a sure answer, "
                f"{100 * self.surely_answered_before:.1f} % without the distance"
            )


def score_foreign(
    detector: ForeignDetector, own: Signals, foreign: Signals, threshold: float | None = None
) -> ForeignScore:
    """Score a detector on own and foreign images; `threshold` is that of sure answers."""
    least = float(np.quantile(detector.confidences, 1 - KEPT, method="lower"))
    sure = answered = None
    interval = None
    if threshold is not None:
        surely = foreign.confidences >= threshold
        count = int((surely & (foreign.distances <= 1)).sum())
        answered = count / len(surely)
        interval = wilson(count, len(surely))
        sure = float(surely.mean())
    return ForeignScore(
        own=len(own.distances),
        foreign=len(foreign.distances),
        distance=_detection(own.distances, foreign.distances, 1.0),
        probability=_detection(-own.confidences, -foreign.confidences, -least),
        surely_answered=answered,
        surely_answered_interval=interval,
        surely_answered_before=sure,
    )


def _detection(own: Floats, foreign: Floats, limit: float) -> DetectionScore:
    value, interval = auroc(own, foreign)
    accepted = int((foreign <= limit).sum())
    kept = int((own <= limit).sum())
    return DetectionScore(
        auroc=value,
        auroc_interval=interval,
        accepted=accepted / len(foreign),
        accepted_interval=wilson(accepted, len(foreign)),
        kept=kept / len(own),
        kept_interval=wilson(kept, len(own)),
    )


def auroc(own: Floats, foreign: Floats) -> tuple[float, Interval]:
    """Area under the ROC curve of scores that are higher for foreign, and its 95 % interval.

    The deviation is DeLong's (1988), the interval symmetric on the scale of log odds, so that it
    stays in [0, 1]. Where no pair is in the wrong order, or all are, nothing deviates: there
    Wilson's interval of as many samples as the smaller side has stands in.

    Args:
        own: (N,); foreign: (M,).
    """
    from scipy.stats import rankdata  # noqa: PLC0415 - half a second

    first = len(own)
    second = len(foreign)
    ranks = rankdata(np.concatenate([own, foreign]))
    above = (ranks[first:] - rankdata(foreign)) / first  # of each foreign one: own ones below it
    below = 1 - (ranks[:first] - rankdata(own)) / second
    value = float(above.mean())
    if not 0 < value < 1 or min(first, second) < 2:
        least = min(first, second)
        return value, wilson(round(value * least), least)
    variance = above.var(ddof=1) / second + below.var(ddof=1) / first
    odds = math.log(value / (1 - value))
    half = Z_95 * math.sqrt(variance) / (value * (1 - value))
    return value, (_from_odds(odds - half), _from_odds(odds + half))


def _from_odds(odds: float) -> float:
    return float(1 / (1 + np.exp(-odds)))
