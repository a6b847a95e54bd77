"""Runs by name: every module here is one run on one screen.

A module holds a value, `recipe`; one that depends on the data also a function, `rule(count, size)`.
What turns a request into one of them is `vitral.planning`.
"""

from __future__ import annotations

import importlib
import pkgutil

from vitral.errors import UsageError
from vitral.training.recipe import Recipe
from vitral.wording import did_you_mean

# what stands in a recipe for weights that only a person can name
WEIGHTS = "WEIGHTS"
TEACHER = "TEACHER"


def names() -> list[str]:
    """The recipes that --recipe accepts."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in modules if not name.startswith("_"))


def named(name: str, count: int | None = None, size: tuple[int, int] | None = None) -> Recipe:
    """Return the recipe of that name, fitted by its rule to so many training images.

    Args:
        name: one of `names()`.
        count: training images; None leaves the recipe as its file has it.
        size: (height, width) in pixels of a usual image; by default the recipe's own.

    Raises UsageError with 'did you mean' where there is no such recipe.
    """
    if name not in names():
        raise UsageError(f"There is no recipe '{name}'; {did_you_mean(name, names())}")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    recipe: Recipe = module.recipe
    if count is None or not hasattr(module, "rule"):
        return recipe
    fitted: Recipe = module.rule(count, size or recipe.images.size)
    return fitted
