"""The one place that fits to images after training, apart from the weights.

fitted = fit("single_label", logits, labels)
fitted = with_foreign(fitted, "single_label", learnt, held_out)      # Samples, with features
fitted.calibration          # temperature and threshold, which model.json has
fitted.arrays()             # all else, which calibration.safetensors has: "foreign.points", ...
Fitted.read(calibration, arrays, width)

The end of a training calls it, and `vitral fit RUN DATA` for any other artifact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.errors import WeightsError
from vitral.evaluation import calibration as calibrating
from vitral.evaluation import foreign
from vitral.evaluation.foreign import ForeignDetector, Sample
from vitral.specs import Calibration
from vitral.specs.task import TaskKind
from vitral.wording import listed

PARTS = ("foreign",)  # the first words of the names in calibration.safetensors


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """Everything that was fitted to images after training.

    Attributes:
        calibration: temperature and threshold; None of a multi-label task.
        foreign: what tells images of none of the classes; None where features were not looked at,
            or tell nothing apart.
    """

    calibration: Calibration | None = None
    foreign: ForeignDetector | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The tensors of calibration.safetensors."""
        if self.foreign is None:
            return {}
        return {f"foreign.{name}": array for name, array in self.foreign.to_arrays().items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of how it was made, for the card."""
        return {"foreign": None if self.foreign is None else self.foreign.to_dict()}

    @classmethod
    def read(
        cls, calibration: Calibration | None, arrays: Mapping[str, NDArray[Any]], width: int
    ) -> Fitted:
        """The inverse of arrays(), for a network whose head reads (N, width).

        Raises WeightsError for a name that nothing here has, and for values that do not fit.
        """
        parts: dict[str, dict[str, NDArray[Any]]] = {}
        for name, array in arrays.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = array
        if unknown := sorted(set(parts) - set(PARTS)):
            raise WeightsError(
                f"calibration.safetensors has {listed(unknown, 3)}, which this version of Vitral "
                f"does not know. Update it, or fit anew: vitral fit RUN DATA."
            )
        try:
            return cls(
                calibration=calibration,
                foreign=(
                    ForeignDetector.from_arrays(parts["foreign"], width)
                    if "foreign" in parts
                    else None
                ),
            )
        except WeightsError as error:
            raise WeightsError(
                f"calibration.safetensors does not fit the model: {error}. Copy the whole artifact "
                f"folder again, or fit anew: vitral fit RUN DATA."
            ) from None


def fit(
    kind: TaskKind, logits: NDArray[np.float32], labels: NDArray[np.int64] | NDArray[np.bool_]
) -> Fitted:
    """Fit what the logits (N, K) and labels of validation images give; several labels have less."""
    match kind:
        case "single_label":
            return Fitted(calibration=calibrating.fit(logits, labels))
        case "multi_label":
            return Fitted()


def with_foreign(fitted: Fitted, kind: TaskKind, learnt: Sample, held_out: Sample) -> Fitted:
    """Add what features give: what tells images of none of the classes; see `foreign.fit`."""
    scores = confidences(kind, held_out.logits, fitted.calibration)
    return replace(fitted, foreign=foreign.fit(learnt, held_out, scores))


def confidences(
    kind: TaskKind, logits: NDArray[np.float32], calibration: Calibration | None
) -> NDArray[np.float64]:
    """The largest probability of each image, (N,), as `predict` has it; logits are (N, K)."""
    scores = logits.astype(np.float64)
    match kind:
        case "single_label":
            temperature = 1.0 if calibration is None else calibration.temperature
            return calibrating.confidences(scores, temperature)
        case "multi_label":
            return np.asarray(np.exp(-np.logaddexp(0, -scores.max(axis=1))))
