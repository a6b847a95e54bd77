"""Builds the objective that a recipe's settings describe."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vitral.errors import SpecError
from vitral.model import ViT
from vitral.training.objectives.base import Objective
from vitral.training.objectives.classification import ClassificationObjective
from vitral.training.objectives.distillation import DistillationObjective, Teacher
from vitral.training.objectives.masked_patches import MaskedPatchObjective
from vitral.training.recipe import Classification, MaskedPatches, Recipe


def build(
    backbone: ViT,
    recipe: Recipe,
    classes: tuple[str, ...] = (),
    labels: np.ndarray | None = None,
    *,
    announce: Callable[[str], None] = print,
) -> Objective:
    """Return the objective of a recipe around its network, on the network's device.

    Args:
        backbone: with the weights that it starts from.
        recipe: whose `objective` says which one.
        classes: names in the order of the logits; none where nothing is classified.
        labels: of the training images, int64 (n,) or bool (n, classes).
        announce: called before a download begins.

    Raises SpecError for a network that the objective cannot teach, and what reading a teacher
    raises.
    """
    labels = np.zeros(0, np.int64) if labels is None else np.asarray(labels)
    match recipe.objective:
        case Classification(teacher=None):
            return ClassificationObjective(backbone, recipe, classes, labels)
        case Classification() as settings:
            device = next(backbone.parameters()).device
            teacher = Teacher.read(
                settings,
                recipe.images,
                classes,
                device,
                rename=recipe.rename,
                announce=announce,
            )
            return DistillationObjective(backbone, recipe, classes, labels, teacher)
        case MaskedPatches():
            return MaskedPatchObjective(backbone, recipe)
        case _:
            raise SpecError(f"There is no objective for {recipe.objective}.")
