"""Drift: whether images without labels are such as the model was held out on.

drift = compare_with_held_out(detector, signals, threshold)
drift.sentence          # "The images differ from those ... (31.0 % are foreign, ...)"
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.errors import DataError
from vitral.evaluation.foreign import ForeignDetector
from vitral.evaluation.foreign_score import Signals
from vitral.evaluation.intervals import wilson

FEWEST = 10  # images, of fewer nothing can be said
LEVEL = 0.01  # of the three tests together (Holm's correction)
_EXPECTED = 5  # images in each cell, below which Fisher's exact test is taken


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A share of images here and among those held out, with the Wilson interval of the first."""

    count: int
    share: float
    interval: tuple[float, float]
    held_out: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """A comparison of images with those that were held out when the model was fitted.

    Attributes:
        samples: images here; held_out: images there.
        shares: "foreign", and of the others "sure" and "unsure"; of a model without a threshold
            "foreign" and "own".
        p_shares: of the hypothesis that the shares are the same; chi-square, or Fisher's exact test
            of the foreign images where there are few.
        p_distances, p_confidences: of the hypotheses that the distances, and the probabilities of
            the answers, come from the same distribution (Kolmogorov and Smirnov).
        drifted: whether one of the three is rejected at LEVEL, by Holm's correction.
    """

    samples: int
    held_out: int
    shares: dict[str, Share]
    p_shares: float
    p_distances: float
    p_confidences: float
    drifted: bool

    @property
    def sentence(self) -> str:
        """Say it in a sentence."""
        foreign = self.shares["foreign"]
        least = min(self.p_shares, self.p_distances, self.p_confidences)
        told = (
            f"{100 * foreign.share:.1f} % are foreign, {100 * foreign.held_out:.1f} % of those "
            f"held out were"
        )
        if "unsure" in self.shares:
            unsure = self.shares["unsure"]
            told += f"; {100 * unsure.share:.1f} % are unsure, {100 * unsure.held_out:.1f} % were"
        if self.drifted:
            return (
                f"The images differ from those that the model was fitted on ({told}; p = "
                f"{least:.1g}). Its accuracy there may not hold here: label some of them and "
                f"evaluate."
            )
        few = " So few images show only large differences." if self.samples < 100 else ""
        return (
            f"No difference from the images that the model was fitted on is seen ({told}; "
            f"p = {least:.2g}).{few}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"level": LEVEL, "sentence": self.sentence}

    def lines(self) -> Iterator[str]:
        """Write for a terminal the shares, the tests and the sentence."""
        yield f"{self.samples:,} images beside the {self.held_out:,} held out when it was fitted"
        for name, each in self.shares.items():
            low, high = (100 * bound for bound in each.interval)
            yield (
                f"{name:<8} {100 * each.share:6.2f} %  (95 %: {low:.2f} to {high:.2f})  held out "
                f"{100 * each.held_out:.2f} %"
            )
        yield (
            f"p of no difference: shares {self.p_shares:.2g}, distances {self.p_distances:.2g}, "
            f"probabilities {self.p_confidences:.2g}"
        )
        yield self.sentence


def compare_with_held_out(
    detector: ForeignDetector, signals: Signals, threshold: float | None
) -> Drift:
    """Compare images with those held out for the fit; `threshold` is that of sure answers.

    Raises DataError for too few images.
    """
    from scipy.stats import ks_2samp  # noqa: PLC0415 - half a second

    if len(signals.distances) < FEWEST:
        raise DataError(
            f"{len(signals.distances)} images tell nothing about a difference; give at least "
            f"{FEWEST}, better a few hundred."
        )
    there = Signals(
        distances=detector.held_out.astype(np.float64),
        confidences=detector.confidences.astype(np.float64),
    )
    names = ("foreign", "own") if threshold is None else ("foreign", "sure", "unsure")
    here_counts = _counts(signals, threshold)
    there_counts = _counts(there, threshold)
    here = int(here_counts.sum())
    fractions = there_counts / there_counts.sum()
    rows = zip(names, here_counts.tolist(), fractions.tolist(), strict=True)
    tests = (
        _p_of_counts(np.stack([here_counts, there_counts])),
        float(ks_2samp(signals.distances, there.distances).pvalue),
        float(ks_2samp(signals.confidences, there.confidences).pvalue),
    )
    return Drift(
        samples=here,
        held_out=int(there_counts.sum()),
        shares={
            name: Share(
                count=count, share=count / here, interval=wilson(count, here), held_out=fraction
            )
            for name, count, fraction in rows
        },
        p_shares=tests[0],
        p_distances=tests[1],
        p_confidences=tests[2],
        drifted=min(tests) * len(tests) < LEVEL,
    )


def _counts(signals: Signals, threshold: float | None) -> NDArray[np.int64]:
    """Foreign images, and of the others the sure and the unsure, or all."""
    foreign = signals.distances > 1
    if threshold is None:
        return np.array([foreign.sum(), (~foreign).sum()])
    sure = signals.confidences >= threshold
    return np.array([foreign.sum(), (~foreign & sure).sum(), (~foreign & ~sure).sum()])


def _p_of_counts(table: NDArray[np.int64]) -> float:
    """The p-value of counts (2, categories) that come from the same shares."""
    from scipy.stats import chi2_contingency, fisher_exact  # noqa: PLC0415 - half a second

    table = table[:, table.any(axis=0)]
    if table.shape[1] < 2:
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    if expected.min() >= _EXPECTED:
        return float(chi2_contingency(table).pvalue)
    rest = np.stack([table[:, 0], table[:, 1:].sum(axis=1)], axis=1)
    return float(fisher_exact(rest).pvalue)
