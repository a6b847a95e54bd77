"""Lengths of a run and of its parts, each with its unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from vitral.errors import SpecError
from vitral.specs.fields import choice

MOST = 1e12  # epochs or steps: longer than any run, and still exact in a float


@dataclass(frozen=True, slots=True)
class Duration:
    """A length with its unit, so that no number of steps is ever taken for epochs."""

    amount: float
    unit: Literal["epochs", "steps"]

    def __post_init__(self) -> None:
        """Refuse negative lengths, fractions of a step and unknown units."""
        choice(self, "unit", Duration)
        if not 0 <= self.amount <= MOST or (
            self.unit == "steps" and self.amount != int(self.amount)
        ):
            raise SpecError(f"A length is 0 to {MOST:g} {self.unit}, not {self.amount}.")

    def in_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps; a fraction of an epoch is rounded to the nearest step."""
        return round(self.amount * (steps_per_epoch if self.unit == "epochs" else 1))

    @classmethod
    def parse(cls, text: str, name: str = "A length") -> Duration:
        """Return the duration that '20 epochs' or '500 steps' means."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e[+-]?\d+)?)\s*(epoch|step)s?\s*", text)
        if not match:
            raise SpecError(f"{name} is written '20 epochs' or '500 steps', not {text!r}.")
        return cls(float(match[1]), "epochs" if match[2] == "epoch" else "steps")

    def __str__(self) -> str:
        whole = self.amount == int(self.amount)
        return f"{int(self.amount) if whole else self.amount!r} {self.unit}"


def epochs(amount: float) -> Duration:
    """A length in passes over the training images."""
    return Duration(amount, "epochs")


def steps(amount: int) -> Duration:
    """A length in optimizer steps."""
    return Duration(amount, "steps")
