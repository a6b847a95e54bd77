"""The proof of an export: what its runtime computes of real images, beside torch in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.engines.measure import interleaved
from vitral.errors import ModelError
from vitral.evaluation.intervals import wilson
from vitral.export.run import Run
from vitral.wording import byte_size

LIMIT = 1e-3  # of a logit, between the runtimes in float32
BATCH = 8  # that both are timed with
ROUNDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """A proof of an export.

    Attributes:
        images: how many were compared.
        max_difference: the largest |difference| of a logit.
        equal_labels: images with the same answer.
        accuracy, accuracy_before: shares of right answers, of the export and of torch in float32;
            None of several labels.
        interval, interval_before: theirs, 95 %.
        images_per_second, images_per_second_before: at batches of 8, interleaved medians.
        bytes: of the exported files.
    """

    images: int
    max_difference: float
    equal_labels: int
    accuracy: float | None
    interval: tuple[float, float] | None
    accuracy_before: float | None
    interval_before: tuple[float, float] | None
    images_per_second: float
    images_per_second_before: float
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Write it for a terminal."""
        lines = [
            f"proof     {self.images:,} images: logits differ by at most "
            f"{self.max_difference:.2g}, labels equal {self.equal_labels:,}/{self.images:,}"
        ]
        if self.accuracy is not None and self.accuracy_before is not None:
            lines.append(
                f"accuracy  {100 * self.accuracy:.2f} % {_bounds(self.interval)}, before "
                f"{100 * self.accuracy_before:.2f} % {_bounds(self.interval_before)}"
            )
        lines.append(
            f"speed     {self.images_per_second:.1f} images/s, torch in float32 "
            f"{self.images_per_second_before:.1f} (batches of {BATCH}); {byte_size(self.bytes)}"
        )
        return lines


def _bounds(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"({100 * interval[0]:.1f}-{100 * interval[1]:.1f})"


def compare(
    before: Run,
    after: Run,
    images: NDArray[np.float32],
    labels: NDArray[Any],
    size: int,
) -> Proof:
    """Compare two ways of computing logits on ready images (N, C, H, W) of these labels."""
    first = in_batches(before, images)
    second = in_batches(after, images)
    if not np.isfinite(second).all():
        raise ModelError("The exported network gives numbers that are not finite.")
    several = labels.ndim > 1
    if several:
        equal = ((first >= 0) == (second >= 0)).all(axis=1)
    else:
        equal = first.argmax(axis=1) == second.argmax(axis=1)
    shares: list[float | None] = [None, None]
    bounds: list[tuple[float, float] | None] = [None, None]
    if not several:
        for place, logits in enumerate((first, second)):
            right = int((logits.argmax(axis=1) == labels).sum())
            shares[place] = right / len(labels)
            bounds[place] = wilson(right, len(labels))
    speeds = speed([before, after], images[:BATCH])
    return Proof(
        images=len(images),
        max_difference=float(np.abs(first - second).max()),
        equal_labels=int(equal.sum()),
        accuracy=shares[1],
        interval=bounds[1],
        accuracy_before=shares[0],
        interval_before=bounds[0],
        images_per_second=speeds[1],
        images_per_second_before=speeds[0],
        bytes=size,
    )


def in_batches(run: Run, images: NDArray[np.float32], batch: int = 32) -> NDArray[np.float32]:
    """Compute logits of many images."""
    parts = [run(images[start : start + batch]) for start in range(0, len(images), batch)]
    return np.concatenate(parts)


def speed(runs: Sequence[Run], images: NDArray[np.float32]) -> list[float]:
    """Measure images a second of each, interleaved: medians of rounds after a warm-up."""
    calls = [partial(run, images) for run in runs]
    return [len(images) / float(np.median(taken)) for taken in interleaved(calls, ROUNDS)]
