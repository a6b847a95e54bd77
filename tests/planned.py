"""What planning makes of a request, without images; and trainings of a recipe made by a test."""

from pathlib import Path

from vitral.planning import choose as choosing
from vitral.planning import origins as naming
from vitral.planning import resolve as resolving
from vitral.planning.choose import Choice, Facts
from vitral.planning.origins import Stage
from vitral.planning.plan import first_weights, open_data
from vitral.planning.request import Request
from vitral.training import loop
from vitral.training.display import Display
from vitral.training.recipe import Recipe
from vitral.training.run_folder import Run
from vitral.weights.card import Card


def card_of(request: Request) -> Card | None:
    return None if request.start is None else first_weights(request.start).card


def choose(request: Request, facts: Facts | None = None) -> Choice:
    card = card_of(request)
    return choosing.choose(request, facts, None if card is None else card.model)


def stages(request: Request, facts: Facts | None = None) -> list[Stage]:
    resolving.draft(request)
    return resolving.resolve(request, choose(request, facts).name, facts, card_of(request))


def resolve(request: Request, facts: Facts | None = None) -> Recipe:
    return stages(request, facts)[-1].recipe


def origins(request: Request, facts: Facts | None = None) -> dict[str, str]:
    return naming.origins_of(stages(request, facts), request)


def train(recipe: Recipe, out: Path, *, display: Display | None = None) -> Run:
    """`loop.train` with the images and the weights that the recipe names."""
    data = open_data(recipe.data, recipe.images.size)
    weights = None if recipe.start is None else first_weights(recipe.start)
    return loop.train(recipe, data, weights, out, display=display)
