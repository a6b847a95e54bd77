"""Trainings of a recipe that a test has made, without a request."""

from pathlib import Path

from vitral.planning.plan import first_weights, open_data
from vitral.training import loop
from vitral.training.display import Display
from vitral.training.recipe import Recipe
from vitral.training.run_folder import Run


def train(recipe: Recipe, out: Path, *, display: Display | None = None) -> Run:
    """`loop.train` with the images and the weights that the recipe names."""
    weights = None if recipe.start is None else first_weights(recipe.start)
    return loop.train(recipe, open_data(recipe), weights, out, display=display)
