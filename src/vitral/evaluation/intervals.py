"""Intervals: the distance from the truth that a number from few samples may have."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vitral.errors import DataError

Z_95 = 1.959963984540054  # the normal quantile at 0.975
_DRAWS = 400  # of the bootstrap; they tell its deviation to 4 %
_CELLS = 1 << 20  # counts in memory at a time


def wilson(correct: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), 95 % by default.

    It stays within [0, 1] and is never empty, at 0 or 100 % and for a handful of samples too,
    where the usual ±1.96·√(p(1-p)/n) has no width. No sample at all leaves (0.0, 1.0).
    """
    if total == 0:
        return 0.0, 1.0
    if not 0 <= correct <= total:
        raise DataError(f"{correct} of {total} is not a proportion.")
    share = correct / total
    square = z * z
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = z / (1 + square / total)
    half *= math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    # at the ends the bound is exact, rounding would leave it a hair outside or inside
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == total else centre + half
    return low, high


def macro_f1(confusion: NDArray[np.int64], seed: int = 0) -> tuple[float, tuple[float, float]]:
    """Mean F1 over the classes that occur on either side, and its 95 % interval.

    The interval is ± 1.96 deviations over samples drawn anew from the (K, K) confusion matrix. No
    drawing finds an error where there is none, nor a right answer: there Wilson's interval of the
    accuracy stands in.
    """
    truth, guess = np.nonzero(confusion)
    counts = confusion[truth, guess]
    samples = int(confusion.sum())
    value = float(_mean_f1(counts[None], truth, guess, len(confusion))[0])
    correct = int(np.trace(confusion))
    if correct in (0, samples):
        return value, wilson(correct, samples)
    random = np.random.default_rng(seed)
    means = []
    size = max(1, _CELLS // max(len(counts), len(confusion)))
    for start in range(0, _DRAWS, size):
        drawn = random.multinomial(samples, counts / samples, min(size, _DRAWS - start))
        means.append(_mean_f1(drawn, truth, guess, len(confusion)))
    half = Z_95 * float(np.concatenate(means).std())
    return value, (max(0.0, value - half), min(1.0, value + half))


def _mean_f1(
    counts: NDArray[np.int64], truth: NDArray[np.intp], guess: NDArray[np.intp], classes: int
) -> NDArray[np.float64]:
    """(B, cells) counts of the pairs (truth, guess) -> (B,) mean F1 of the classes that occur."""
    draws = len(counts)

    def per_class(numbers: NDArray[np.intp], of: NDArray[np.int64]) -> NDArray[np.float64]:
        flat = (np.arange(draws)[:, None] * classes + numbers).ravel()
        sums = np.bincount(flat, of.ravel(), draws * classes).reshape(draws, classes)
        return sums.astype(np.float64, copy=False)

    right = truth == guess
    both = per_class(truth, counts) + per_class(guess, counts)
    f1 = 2 * per_class(truth[right], counts[:, right]) / np.maximum(both, 1)
    return np.asarray(f1.sum(axis=1) / (both > 0).sum(axis=1), np.float64)
