"""The one place that fits to images after training, apart from the weights.

fitted = fit("single_label", logits, labels)
fitted = with_foreign(fitted, "single_label", learnt, held_out)      # Samples, with features
fitted.calibration          # temperature and threshold, which model.json has
fitted.arrays()             # all else, which calibration.safetensors has: "foreign.points", ...
Fitted.read(card, arrays)

The end of a training calls it, and `vitral fit RUN DATA` for any other artifact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.errors import WeightsError
from vitral.evaluation import calibration as calibrating
from vitral.evaluation import foreign
from vitral.evaluation.answer_sets import SetCalibration
from vitral.evaluation.class_tree import fit_threshold
from vitral.evaluation.foreign import ForeignDetector, Sample
from vitral.specs import Calibration
from vitral.specs.task import TaskKind
from vitral.specs.tree import ClassTree
from vitral.weights.card import Card
from vitral.wording import listed

PARTS = ("foreign", "sets")  # the first words of the names in calibration.safetensors


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """Everything that was fitted to images after training.

    Attributes:
        calibration: temperature and threshold; None of a multi-label task.
        foreign: what tells images of none of the classes; None where features were not looked at,
            or tell nothing apart.
        sets: scores of validation images, from which answer sets of any level follow; None of a
            multi-label task.
        tree: groups of the classes, with their threshold; None without any.
    """

    calibration: Calibration | None = None
    foreign: ForeignDetector | None = None
    sets: SetCalibration | None = None
    tree: ClassTree | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The tensors of calibration.safetensors."""
        arrays: dict[str, NDArray[Any]] = {}
        if self.foreign is not None:
            arrays |= {f"foreign.{name}": x for name, x in self.foreign.to_arrays().items()}
        if self.sets is not None:
            arrays |= {f"sets.{name}": x for name, x in self.sets.to_arrays().items()}
        return arrays

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of how it was made, for the card."""
        return {
            "foreign": None if self.foreign is None else self.foreign.to_dict(),
            "sets": None if self.sets is None else self.sets.to_dict(),
        }

    @classmethod
    def read(cls, card: Card, arrays: Mapping[str, NDArray[Any]]) -> Fitted:
        """The inverse of arrays(), for the network of a card, which has the rest.

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
                calibration=card.calibration,
                foreign=(
                    ForeignDetector.from_arrays(parts["foreign"], card.model.read_width)
                    if "foreign" in parts
                    else None
                ),
                sets=(
                    SetCalibration.from_arrays(parts["sets"], len(card.classes))
                    if "sets" in parts
                    else None
                ),
                tree=card.tree,
            )
        except WeightsError as error:
            raise WeightsError(
                f"calibration.safetensors does not fit the model: {error}. Copy the whole artifact "
                f"folder again, or fit anew: vitral fit RUN DATA."
            ) from None


def fit(
    kind: TaskKind,
    logits: NDArray[np.float32],
    labels: NDArray[np.int64] | NDArray[np.bool_],
    classes: Sequence[str] = (),
    tree: ClassTree | None = None,
    *,
    fresh: bool = False,
    of_training: bool = True,
) -> Fitted:
    """Fit what the logits (N, K) and labels of validation images give; several labels have less.

    Args:
        kind: of the task; logits, labels: of N images.
        classes: K names; tree: their groups, which get a threshold.
        fresh, of_training: where the images are from, as of `SetCalibration`.
    """
    match kind:
        case "single_label":
            calibration = calibrating.fit(logits, labels)
            if tree is not None:
                scores = np.asarray(logits, np.float64)
                truth = np.asarray(labels, np.int64)
                least = fit_threshold(scores, truth, classes, tree, calibration)
                tree = replace(tree, threshold=least)
            return Fitted(
                calibration=calibration,
                sets=SetCalibration.of(logits, labels, fresh=fresh, of_training=of_training),
                tree=tree,
            )
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
