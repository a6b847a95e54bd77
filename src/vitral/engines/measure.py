"""Measure how fast networks compute: interleaved rounds, and what the machine could do at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

MATRIX = 2048  # rows and columns of the product by which a machine is measured
_ROUNDS = 5


def interleaved(calls: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Measure the seconds of each call in turn, round after round, after one round of warm-up.

    So whatever else the machine does meanwhile meets all of them alike. Returns, for each call, the
    seconds of its rounds.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 1):
        for taken, call in zip(seconds, calls, strict=True):
            start = time.perf_counter()
            call()
            if number:
                taken.append(time.perf_counter() - start)
    return seconds


def matrix_rate(precision: Literal["fp32", "bf16"]) -> float:
    """Measure the floating-point operations a second of one large matrix product by torch here."""
    import torch  # noqa: PLC0415 - choosing an engine by what is kept needs none

    kind = torch.float32 if precision == "fp32" else torch.bfloat16
    one, other = torch.randn(2, MATRIX, MATRIX).to(kind)
    with torch.no_grad():
        (seconds,) = interleaved([lambda: one @ other], _ROUNDS)
    return 2 * MATRIX**3 / min(seconds)
