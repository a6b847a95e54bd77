"""From a recipe's settings to the objective that they describe."""

from __future__ import annotations

from collections.abc import Callable

from vitral.data.datasets import Dataset
from vitral.errors import SpecError
from vitral.model import ViT
from vitral.training.objectives.base import Objective
from vitral.training.objectives.classification import ClassificationObjective
from vitral.training.objectives.distillation import DistillationObjective, Teacher
from vitral.training.recipe import Classification, Recipe


def build(
    backbone: ViT, recipe: Recipe, data: Dataset, *, announce: Callable[[str], None] = print
) -> Objective:
    """Return the objective of a recipe around its network, on the network's device.

    `announce` is told of a download before it begins. Raises what reading a teacher raises.
    """
    match recipe.objective:
        case Classification(teacher=None):
            return ClassificationObjective(backbone, recipe, data)
        case Classification() as settings:
            device = next(backbone.parameters()).device
            teacher = Teacher.read(settings, recipe.images, data.classes, device, announce=announce)
            return DistillationObjective(backbone, recipe, data, teacher)
        case _:
            raise SpecError(f"There is no objective for {recipe.objective}.")
