"""A request becomes a recipe: chosen by the data, changed as asked, each value with its origin."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

from vitral import catalog
from vitral.errors import UsageError
from vitral.planning.choose import Facts, Request
from vitral.planning.choose import choose as choose_recipe
from vitral.planning.origins import Stages
from vitral.planning.origins import of as origins_of
from vitral.recipes import TEACHER, WEIGHTS, named, names
from vitral.specs import Dropouts, ImageSpec, ModelSpec
from vitral.specs.augment import Augment
from vitral.training.duration import Duration, epochs
from vitral.training.recipe import Classification, Recipe, Schedule, override
from vitral.weights.artifact import Card
from vitral.weights.read import read_weights

NOT_SET = {
    "data.source": "the images are named by themselves, vitral train PHOTOS/",
    "model.classes": "the classes are those of the images",
    "model.name": "a model is named by --model",
}
# whose images keep the size that the weights saw
AS_THE_WEIGHTS = ("finetune", "finetune-small", "lora", "probe")


def choose(
    request: Request, facts: Facts | None = None, card: Card | None = None
) -> tuple[str, str]:
    """The name of the recipe that a request means, and the reason in a clause.

    `card` is that of the weights to start from, if it has been read.
    """
    if request.recipe is None:
        card = card or card_of(request)
    return choose_recipe(request, facts, None if card is None else card.model)


def resolve(request: Request, facts: Facts | None = None) -> Recipe:
    """The recipe that a request means: the named or default one, with what was asked changed.

    With `facts` of the data it is chosen by them, and fitted to them. `--set` is applied last and
    wins.
    """
    return stages(request, facts, card_of(request))[-1][1]


def origins(request: Request, facts: Facts | None = None) -> dict[str, str]:
    """Dotted field -> where its value comes from: "recipe finetune", "--epochs", "default", ..."""
    return origins_of(stages(request, facts, card_of(request)), request)


def card_of(request: Request) -> Card | None:
    """The card of the weights of --from."""
    if request.start is None:
        return None
    if request.model is not None:
        raise UsageError("The weights of --from bring their model; leave --model out.")
    return read_weights(request.start, announce=print).card


def stages(request: Request, facts: Facts | None, card: Card | None) -> Stages:
    """The recipe as it is, and after each thing that changes it."""
    name, _ = choose(request, facts, card)
    stages: Stages = [(f"recipe {name}", _first(name))]
    if facts is not None and name in names():
        size = request.size if isinstance(request.size, tuple | None) else (request.size,) * 2
        if request.model is not None:  # a patch that somebody chose does not follow the pictures
            size = size or stages[0][1].images.size
        stages.append(
            (
                f"recipe {name} for {facts.count:,} images",
                named(name, facts.count, size or facts.size),
            )
        )
    recipe = stages[-1][1]
    own_size = recipe.start == WEIGHTS and name not in AS_THE_WEIGHTS
    model, images = _network(recipe, request, card, own_size)
    start = request.start or recipe.start
    label = f"--model {request.model}" if request.model else "the weights" if card else "--size"
    recipe = replace(recipe, model=model, images=images, start=start)
    if model.is_resnet:  # no residual branches of a transformer to drop
        recipe = replace(recipe, noise=Dropouts())
    stages.append((label, recipe))
    recipe = _asked(recipe, request)
    if request.epochs is not None:
        if not 0 < request.epochs < math.inf:
            raise UsageError(f"--epochs is passes over the images, above 0, not {request.epochs}.")
        recipe = _shortened(recipe, request.epochs)
    stages.append(("--epochs", recipe))
    if isinstance(request.changes, str):
        raise UsageError("Changes are a list like ['optimizer.lr=3e-4'], not a text.")
    for field, why in NOT_SET.items():
        if any(change.partition("=")[0].strip() == field for change in request.changes):
            raise UsageError(f"{field} cannot be set: {why}.")
    recipe = override(recipe, request.changes) if request.changes else recipe
    stages.append(("--set", recipe))
    if recipe.tune == "probe":
        recipe = _solved(recipe)
    stages.append(("--tune", recipe))
    _refuse_gaps(recipe, name)
    return stages


def _solved(recipe: Recipe) -> Recipe:
    """A probe, which looks at every image once as it is and solves for its head.

    Raises UsageError for what a solver cannot follow.
    """
    goal = recipe.objective
    if goal.teacher is not None or goal.loss != "softmax" or goal.class_weights != "none":
        raise UsageError(
            "--tune probe solves a softmax over the labels: it takes no teacher, no "
            "objective.class_weights and no other loss."
        )
    return replace(
        recipe,
        schedule=Schedule(kind="constant", warmup=epochs(0)),
        objective=Classification(),
        augment=Augment(crop="none", flip=0.0),
        noise=Dropouts(),
        length=epochs(1),
        evaluate_every=epochs(1),
        ema=0.0,
        patience=None,
    )


def _first(name: str) -> Recipe:
    """The recipe before anything changes it: a name, or the recipe.json of a run."""
    path = Path(name)
    if name in names() or not (path.suffix == ".json" or path.is_dir()):
        return named(name)
    path = path / "recipe.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Recipe.from_dict(content.get("recipe", content))
    except FileNotFoundError:
        raise UsageError(
            f"--recipe {name}: there is no {path}; give a name ({', '.join(names())}), or the "
            f"recipe.json of a run."
        ) from None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as a recipe: {error}") from None


def _asked(recipe: Recipe, request: Request) -> Recipe:
    """What has an option of its own, other than the network and the length."""
    batch = recipe.data.batch if request.batch is None else request.batch
    source = str(request.data) or recipe.data.source
    if not source:
        raise UsageError("Say what to train on: vitral train PHOTOS/, or vitral train digits.")
    return replace(
        recipe,
        data=replace(recipe.data, source=source, batch=batch),
        tune=request.tune or recipe.tune,
        seed=recipe.seed if request.seed is None else request.seed,
    )


def _refuse_gaps(recipe: Recipe, name: str) -> None:
    """UsageError where only a person can name the weights."""
    if recipe.start == WEIGHTS:
        raise UsageError(f"The recipe {name} starts from weights: --from WEIGHTS.")
    if recipe.objective.teacher == TEACHER:
        raise UsageError(
            f"The recipe {name} learns from a teacher: --set objective.teacher=WEIGHTS, a run, an "
            f"artifact or an id that knows these classes."
        )
    if recipe.tune != "full" and recipe.start is None:
        raise UsageError(
            f"--tune {recipe.tune} keeps most weights as they are, so name some: --from WEIGHTS."
        )


def _network(
    recipe: Recipe, request: Request, card: Card | None, own_size: bool
) -> tuple[ModelSpec, ImageSpec]:
    """The network and its preprocessing: of --from, else of --model, else of the recipe."""
    if card is None:
        size = request.size if request.size is not None else recipe.images.size
        if request.model is not None:
            model = catalog.model(request.model, size=size)
        else:
            model = replace(recipe.model, size=(size, size) if isinstance(size, int) else size)
        return model, replace(recipe.images, size=model.size)
    size = request.size or (recipe.images.size if own_size else card.model.size)
    # the pre-logits layer is dropped and the head new (section 3.2 of the paper); training is RGB
    square = (size, size) if isinstance(size, int) else size
    model = replace(card.model, size=square, representation=0, channels=3)
    images = replace(card.images, size=model.size)
    if own_size:
        images = replace(images, fit=recipe.images.fit, crop=recipe.images.crop)
    if len(images.mean) != 3:
        images = replace(images, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return model, images


def _shortened(recipe: Recipe, amount: float) -> Recipe:
    """Another length in epochs; the warm-up and the cooldown keep their shares of the run."""
    in_epochs, schedule = recipe.length.unit == "epochs", recipe.schedule

    def scaled(part: Duration) -> Duration:
        alike = in_epochs and part.unit == "epochs"
        return epochs(part.amount / recipe.length.amount * amount) if alike else part

    warmup, cooldown = scaled(schedule.warmup), scaled(schedule.cooldown)
    schedule = replace(schedule, warmup=warmup, cooldown=cooldown)
    return replace(recipe, length=epochs(amount), schedule=schedule)
