"""Calibration: how far the probabilities of a model may be believed; it travels in the artifact."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from vitral.errors import SpecError
from vitral.specs.fields import from_mapping


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Values fitted on validation images, after the training and apart from the weights.

    Attributes:
        temperature: probabilities are softmax(logits / temperature).
        threshold: an answer whose probability is below it is "unsure".
        target: share of the sure answers that were right on those images.
        samples: how many images they were.
    """

    temperature: float
    threshold: float
    target: float
    samples: int

    def __post_init__(self) -> None:
        """Refuse values that no probability could have."""
        if not 0 < self.temperature < math.inf:
            raise SpecError(
                f"Calibration.temperature is a finite number above 0, not {self.temperature}."
            )
        if not 0 <= self.threshold <= 1:
            raise SpecError(
                f"Calibration.threshold is a probability in [0, 1], not {self.threshold}."
            )
        if not 0 < self.target <= 1:
            raise SpecError(f"Calibration.target is a share in (0, 1], not {self.target}.")
        if self.samples < 1:
            raise SpecError(f"Calibration.samples is at least 1, not {self.samples}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for model.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """The inverse of to_dict; SpecError names an unknown or a missing field."""
        return from_mapping(cls, values)
