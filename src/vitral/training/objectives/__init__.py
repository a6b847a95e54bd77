"""Objectives, one file each, which owns its modules, loss and validation.

Imports recipe, model, data, evaluation and weights; step, session and validation may import it.
"""

from vitral.training.objectives.base import Loss, Objective, Observed, StepPosition
from vitral.training.objectives.from_recipe import build

__all__ = ["Loss", "Objective", "Observed", "StepPosition", "build"]
