"""A comparison of two models on the same images: is one better, or only luckier?

comparison = compare(first, second)           # evaluations of two models on the same images
comparison.verdict, comparison.p              # "not distinguishable", 0.36
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vitral.errors import DataError
from vitral.evaluation.intervals import Z_95, wilson
from vitral.evaluation.score import Score, share_line

SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two models on the same images.

    Attributes:
        samples: how many images.
        accuracy, other_accuracy: of the first and of the second model; interval, other_interval:
            Wilson 95 %.
        only_first, only_second: images that one of them alone names right.
        both, neither: images that both of them, or none, name right.
        difference: accuracy - other_accuracy; difference_interval: its 95 % interval for paired
            proportions.
        p: how probable so uneven a share of the images that one alone names right would be if the
            models were equally good (McNemar's test, exact).
    """

    samples: int
    accuracy: float
    interval: tuple[float, float]
    other_accuracy: float
    other_interval: tuple[float, float]
    both: int
    only_first: int
    only_second: int
    neither: int
    difference: float
    difference_interval: tuple[float, float]
    p: float

    @property
    def verdict(self) -> Literal["not distinguishable", "first is better", "second is better"]:
        """The conclusion that these images allow, at 5 %."""
        if self.p >= SIGNIFICANT:
            return "not distinguishable"
        return "first is better" if self.difference > 0 else "second is better"

    def lines(self, first: str, second: str) -> Iterator[str]:
        """Write for a terminal both accuracies, where they differ, and what that means.

        `first` and `second` are the names of the models.
        """
        width = max(9, len(first), len(second))
        yield share_line(first, self.accuracy, self.interval, width)
        yield share_line(second, self.other_accuracy, self.other_interval, width)
        yield (
            f"right      both {self.both:,}, only the first {self.only_first:,}, only the second "
            f"{self.only_second:,}, neither {self.neither:,} of {self.samples:,} images"
        )
        low, high = (100 * bound for bound in self.difference_interval)
        yield (
            f"differ     by {100 * self.difference:+.2f} points (95 %: {low:+.2f} to {high:+.2f}), "
            f"p = {self.p:.3g} (McNemar, exact)"
        )
        better = first if self.difference > 0 else second
        clear = self.verdict != "not distinguishable"
        yield f"verdict    {f'{better} is better' if clear else self.verdict}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = asdict(self) | {"verdict": self.verdict}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def compare(first: Score, second: Score) -> Comparison:
    """Compare two evaluations of the same images, paired by key; classes are compared by name.

    Raises DataError when they are not of the same images with the same labels.
    """
    other = {answer.key: answer for answer in second.predictions}
    if {answer.key for answer in first.predictions} != set(other):
        raise DataError(
            f"The two models were evaluated on different images ({first.samples} and "
            f"{second.samples}); compare them on the same ones."
        )
    counts = {(a, b): 0 for a in (True, False) for b in (True, False)}
    for answer in first.predictions:
        pair = other[answer.key]
        if pair.labels != answer.labels:
            raise DataError(
                f"{answer.key} is '{answer.label}' for the first model and '{pair.label}' for the "
                f"second; compare them on the same labels."
            )
        counts[answer.correct, pair.correct] += 1
    only_first = counts[True, False]
    only_second = counts[False, True]
    both = counts[True, True]
    samples = len(first.predictions)
    return Comparison(
        samples=samples,
        accuracy=(both + only_first) / samples,
        interval=wilson(both + only_first, samples),
        other_accuracy=(both + only_second) / samples,
        other_interval=wilson(both + only_second, samples),
        both=both,
        only_first=only_first,
        only_second=only_second,
        neither=counts[False, False],
        difference=(only_first - only_second) / samples,
        difference_interval=paired_interval(only_first, only_second, samples),
        p=mcnemar(only_first, only_second),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test (McNemar 1947): two-sided binomial of the pairs that differ."""
    from scipy.stats import binomtest  # noqa: PLC0415 - seconds

    differ = only_first + only_second
    return float(binomtest(only_first, differ, 0.5).pvalue) if differ else 1.0


def paired_interval(
    only_first: int, only_second: int, samples: int, z: float = Z_95
) -> tuple[float, float]:
    """The interval of a difference of paired proportions (Bonett & Price 2012).

    Wald's interval with one pair of either kind added, which keeps its width where none differ.
    """
    first = (only_first + 1) / (samples + 2)
    second = (only_second + 1) / (samples + 2)
    half = z * math.sqrt((first + second - (first - second) ** 2) / (samples + 2))
    return max(-1.0, first - second - half), min(1.0, first - second + half)
