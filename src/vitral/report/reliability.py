"""The reliability of the probabilities, and the gain of answering only when confident."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from vitral.drawing import svg_charts
from vitral.drawing.svg_charts import Series, line_chart
from vitral.evaluation import Prediction
from vitral.report.curves import percent
from vitral.report.translations import Translations

_WIDTH = 320  # of the view box
_HEIGHT = 330
_ACROSS = (56, 310)  # from where to where the axes stand
_DOWN = (10, 230)
_COUNTS = (262, 292)  # the bars of the counts
_TABLE = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # thresholds where no script moves a slider


@dataclass(frozen=True, kw_only=True, slots=True)
class CoverageCurve:
    """The share that is answered, and how much of that is right, at each threshold.

    Attributes:
        thresholds: ascending, 0 to 1 in thousandths, and the artifact's own.
        answered: how many images have at least that probability; right: of those, how many.
        samples: all of them; start: index of the artifact's threshold, 0 where it has none.
    """

    thresholds: tuple[float, ...]
    answered: tuple[int, ...]
    right: tuple[int, ...]
    samples: int
    start: int

    def at(self, index: int) -> dict[str, Any]:
        """Threshold, coverage, accuracy (None where nothing is answered) and count of unsure."""
        answered = self.answered[index]
        return {
            "threshold": self.thresholds[index],
            "coverage": answered / self.samples,
            "accuracy": self.right[index] / answered if answered else None,
            "unsure": self.samples - answered,
        }

    def table(self) -> list[dict[str, Any]]:
        """`at` a few thresholds, the artifact's among them."""
        wanted = {self.thresholds.index(t) for t in _TABLE} | {self.start}
        return [self.at(index) for index in sorted(wanted)]


def coverage_curve(predictions: Sequence[Prediction], threshold: float | None) -> CoverageCurve:
    """Count what is answered at each threshold; an answer counts from the threshold on.

    Both sides are compared to six decimals, as predictions.csv has them.
    """
    start = round(threshold or 0.0, 6)
    thresholds = np.union1d(np.round(np.arange(1001) / 1000, 6), [start])
    scores = np.round([p.score for p in predictions], 6)
    right = np.array([p.correct for p in predictions])
    answered, correct = (
        len(some) - np.searchsorted(np.sort(some), thresholds) for some in (scores, scores[right])
    )
    return CoverageCurve(
        thresholds=tuple(thresholds.tolist()),
        answered=tuple(answered.tolist()),
        right=tuple(correct.tolist()),
        samples=len(predictions),
        start=int(np.searchsorted(thresholds, start)),
    )


def coverage_chart(coverage: CoverageCurve, language: Translations) -> Markup:
    """Draw coverage and accuracy over the threshold, in percent; it spans x = 0 to 100."""
    last = len(coverage.thresholds) - 1
    points = [coverage.at(i) for i in [*range(0, last, 3), last]]

    def series(name: str, pane: str, key: str) -> Series:
        values = [(100 * p["threshold"], p[key]) for p in points if p[key] is not None]
        return Series(name=name, pane=pane, points=values)

    lines = [
        series(language.say("answered"), "amber", "coverage"),
        series(language.say("right among them"), "emerald", "accuracy"),
    ]
    label = language.say("answer from this probability on, in percent")
    title = language.say("Answered, and right among them, over the threshold")
    return line_chart(lines, label, title, percent, from_zero=True)


def reliability_diagram(side: Mapping[str, Any], title: str, language: Translations) -> Markup:
    """Draw accuracy over confidence in bins, and how many images are in each.

    `side` is "before" or "after" of the evaluation's to_dict()["calibration"]. The gap between the
    bar and the diagonal is what the expected calibration error weighs (Guo et al. 2017, figure 1).
    """
    bins = [bin_ for bin_ in side["bins"] if bin_["count"]]
    most = max((bin_["count"] for bin_ in bins), default=1)
    parts = [_axes(language), *(_bin(bin_, most, language) for bin_ in bins)]
    ideal = f"M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}"
    parts.append(Markup('<path class="ideal" d="{}"/>').format(ideal))
    return Markup(
        '<svg class="chart reliability" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH, _HEIGHT, title, Markup("").join(parts))


def _bin(bin_: Mapping[str, Any], most: int, language: Translations) -> Markup:
    """The bar of a bin, its gap to the diagonal, and the bar of its count beside the tallest."""
    accuracy = bin_["accuracy"]
    confidence = bin_["confidence"]
    across = (_x(bin_["low"]) + 1, _x(bin_["high"]) - 1)
    gap = (_y(max(accuracy, confidence)), _y(min(accuracy, confidence)))
    tip = language.say(
        "%(count)s images: %(confidence)s sure, %(accuracy)s right",
        {
            "count": bin_["count"],
            "confidence": percent(round(confidence, 3)),
            "accuracy": percent(round(accuracy, 3)),
        },
    )
    height = round((_COUNTS[1] - _COUNTS[0]) * bin_["count"] / most, 1)
    return Markup("<g><title>{}</title>{}{}{}</g>").format(
        tip,
        _bar("bar", across, (_y(accuracy), _DOWN[1])),
        _bar("gap", across, gap),
        _bar("count", across, (_COUNTS[1] - max(height, 1), _COUNTS[1])),
    )


def _axes(language: Translations) -> Markup:
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = min(_x(share), _ACROSS[1] - 8)
        parts.append(svg_charts.grid_line(_ACROSS, _y(share), percent(share)))
        parts.append(svg_charts.text("x", x, _DOWN[1] + 16, f"{100 * share:g}"))
    label = language.say("how sure the answer is, in percent")
    parts.append(svg_charts.text("x", sum(_ACROSS) / 2, _HEIGHT - 8, label))
    parts.append(svg_charts.text("y", _ACROSS[0] - 6, _COUNTS[1], language.say("images")))
    parts += [svg_charts.axis(_ACROSS, y) for y in (_DOWN[1], _COUNTS[1])]
    return Markup("").join(parts)


def _bar(kind: str, across: tuple[float, float], down: tuple[float, float]) -> Markup:
    left, right = across
    top, bottom = down
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        kind, left, top, round(max(right - left, 1), 1), round(max(bottom - top, 0), 1)
    )


def _x(share: float) -> float:
    left, right = _ACROSS
    return round(left + share * (right - left), 1)


def _y(share: float) -> float:
    top, bottom = _DOWN
    return round(bottom - share * (bottom - top), 1)
