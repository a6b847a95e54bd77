"""A request becomes a recipe: chosen by the data, changed as asked, each value with its origin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitral import catalog
from vitral.data.builtin import BUILT_IN
from vitral.data.problems import sibling
from vitral.errors import DataError, UsageError
from vitral.planning.choose import Facts
from vitral.planning.origins import Stage
from vitral.planning.request import Request
from vitral.recipes import TEACHER, WEIGHTS, named, names
from vitral.specs import Dropouts, ImageSpec, ModelSpec
from vitral.specs.augment import Augment
from vitral.specs.fields import from_mapping, pair
from vitral.training import places
from vitral.training.duration import Duration, epochs
from vitral.training.recipe import (
    Classification,
    Data,
    Recipe,
    Schedule,
    Tune,
    assigned,
    override,
)
from vitral.weights.card import Card

# whose images keep the size that the weights saw
AS_THE_WEIGHTS = ("finetune", "finetune-small", "lora", "probe")


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A run as far as a request describes it before the images are opened.

    Attributes:
        data: how they are opened.
        size: (height, width) in pixels, at which `shapes` is drawn; None: as the weights of --from.
        start: the weights to read; None for none.
        rename: classes of those weights.
        labelled: whether the images need labels.
    """

    data: Data
    size: tuple[int, int] | None
    start: str | None
    rename: tuple[tuple[str, str], ...]
    labelled: bool


def draft(request: Request) -> Draft:
    """Read off a request what no image can change, so a mistake is reported before any is read.

    Raises UsageError or SpecError for an unknown recipe or setting, and for weights that only a
    person can name.
    """
    usual = "finetune" if request.start is not None else "scratch-small"
    if request.data in BUILT_IN and request.start is None:
        usual = request.data
    name = request.recipe or usual
    recipe = recipe_of(name)
    if request.model is not None:
        catalog.model(request.model, size=request.size or recipe.images.size)
    values = recipe.to_dict()
    values["start"] = request.start or values["start"]
    values["tune"] = str(request.tune or recipe.tune)
    values["data"]["source"] = request.data or values["data"]["source"]
    values["data"]["tree"] = request.tree or values["data"]["tree"]
    values["data"] |= _files(request)
    values = assigned(values, request.changes)
    if not values["data"]["source"]:
        raise UsageError("Say what to train on: vitral train PHOTOS/, or vitral train digits.")
    _refuse_gaps(values, name)
    as_the_weights = request.start is not None and not _sets_size(recipe, name)
    size = request.size or (None if as_the_weights else values["images"]["size"])
    return Draft(
        data=from_mapping(Data, values["data"]),
        size=None if size is None else pair("--size", size),
        start=values["start"],
        rename=request.rename or recipe.rename,
        labelled=recipe.labelled,
    )


def resolve(
    request: Request, name: str, facts: Facts | None = None, card: Card | None = None
) -> list[Stage]:
    """The recipe of that name and after each thing that changes it; the last is the one to run.

    Args:
        request: `--set` is applied last and wins.
        name: of the recipe, as `choose` found it.
        facts: of the data, to which the recipe is fitted.
        card: of the weights of --from, which bring their network and preprocessing.
    """
    recipe = recipe_of(name)
    stages = [Stage(f"recipe {name}", recipe)]
    if facts is not None and name in names():
        size = None if request.size is None else pair("--size", request.size)
        if request.model is not None:  # a patch that somebody chose does not follow the pictures
            size = size or recipe.images.size
        recipe = named(name, facts.count, size or facts.size)
        stages.append(Stage(f"recipe {name} for {facts.count:,} images", recipe))
    model, images = _network(recipe, request, card, _sets_size(recipe, name))
    start = request.start or recipe.start
    recipe = replace(recipe, model=model, images=images, start=start)
    if model.is_resnet:  # no residual branches of a transformer to drop
        recipe = replace(recipe, noise=Dropouts())
    label = f"--model {request.model}" if request.model else "the weights" if card else "--size"
    stages.append(Stage(label, recipe))
    recipe = _with_options(recipe, request)
    if request.keep and card is not None:
        recipe = _keeping(recipe, card)
        stages.append(Stage("--keep", recipe))
    if request.epochs is not None:
        recipe = _shortened(recipe, request.epochs)
    stages.append(Stage("--epochs", recipe))
    recipe = override(recipe, request.changes) if request.changes else recipe
    stages.append(Stage("--set", recipe))
    if recipe.tune.kind == "probe":
        recipe = _solved(recipe)
    stages.append(Stage("--tune", recipe))
    return stages


def _keeping(recipe: Recipe, card: Card) -> Recipe:
    """A run whose weights go on knowing their classes, with their own answers as a teacher.

    Learning without forgetting (Li and Hoiem 2016, arXiv:1606.09282), at its temperature of 2 and
    with as much weight for the old answers as for the labels.

    Raises UsageError for what has no old answers to keep.
    """
    goal = recipe.objective
    if not card.classes:
        raise UsageError("--keep: the weights of --from name no class, so there is none to keep.")
    if not isinstance(goal, Classification):
        raise UsageError(f"--keep keeps answers about classes; {goal.kind} learns without any.")
    if goal.teacher is not None:
        raise UsageError("--keep has the old network as a teacher; leave the other teacher out.")
    if recipe.tune.kind == "probe":
        raise UsageError(
            "--keep learns beside the old answers, and --tune probe solves for a whole new head; "
            "leave one out, or take --tune last:1."
        )
    kept = replace(goal, teacher=recipe.start, distill="known", distill_share=0.5, temperature=2.0)
    data = replace(recipe.data, known=card.classes)
    # the old rows read what the pre-logits layer makes
    model = replace(recipe.model, representation=card.model.representation)
    # the held-out images may show the new classes alone: to choose by them were to choose to forget
    return replace(recipe, objective=kept, data=data, model=model, select="last", patience=None)


def _solved(recipe: Recipe) -> Recipe:
    """A probe, which looks at every image once as it is and solves for its head.

    Raises UsageError for what a solver cannot follow.
    """
    goal = recipe.objective
    if not isinstance(goal, Classification):
        raise UsageError(
            f"--tune probe solves for the labels; {goal.kind} learns without them. Leave one out."
        )
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


def recipe_of(name: str) -> Recipe:
    """The recipe before anything changes it: a name, or the recipe.json of a run (or its folder).

    Raises UsageError where there is none, or none that can be read.
    """
    path = Path(name)
    if name in names() or not (path.suffix == ".json" or path.is_dir()):
        return named(name)
    path = path / "recipe.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        recipe = Recipe.from_dict(content.get("recipe", content))
        return replace(recipe, data=places.last_place(path.parent, recipe.data))
    except FileNotFoundError:
        raise UsageError(
            f"--recipe {name}: there is no {path}; give a name ({', '.join(names())}), or the "
            f"recipe.json of a run."
        ) from None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as a recipe: {error}") from None


def _with_options(recipe: Recipe, request: Request) -> Recipe:
    """What has an option of its own, other than the network and the length."""
    batch = recipe.data.batch if request.batch is None else request.batch
    source = request.data or recipe.data.source
    places = _files(request)
    return replace(
        recipe,
        rename=request.rename or recipe.rename,
        data=replace(
            recipe.data,
            source=source,
            batch=batch,
            tree=request.tree or recipe.data.tree,
            class_file=places.get("class_file", recipe.data.class_file),
            label_file=places.get("label_file", recipe.data.label_file),
        ),
        tune=request.tune or recipe.tune,
        seed=recipe.seed if request.seed is None else request.seed,
    )


def _files(request: Request) -> dict[str, str]:
    """The files of class names and of corrections, where a resume from another folder finds them.

    Raises DataError for one that is not there.
    """
    asked = {"class_file": request.classes, "label_file": request.labels}
    places = {field: Path(file) for field, file in asked.items() if file is not None}
    for field, path in places.items():
        if not path.is_file():
            option = "--classes" if field == "class_file" else "--labels"
            raise DataError(f"{option} {path} is not a file; {sibling(path, ())}")
    return {field: str(path.resolve()) for field, path in places.items()}


def _refuse_gaps(values: Mapping[str, Any], name: str) -> None:
    """UsageError where only a person can name the weights; `values` are a recipe's."""
    if values["start"] == WEIGHTS:
        raise UsageError(f"The recipe {name} starts from weights: --from WEIGHTS.")
    if values["objective"].get("teacher") == TEACHER:
        raise UsageError(
            f"The recipe {name} learns from a teacher: --set objective.teacher=WEIGHTS, a run, an "
            f"artifact or an id that knows these classes."
        )
    if Tune.parse(str(values["tune"])).kind != "full" and values["start"] is None:
        raise UsageError(
            f"--tune {values['tune']} keeps most weights as they are, so name some: --from WEIGHTS."
        )


def _sets_size(recipe: Recipe, name: str) -> bool:
    """Whether a recipe that starts from weights says itself at what size."""
    return recipe.start == WEIGHTS and name not in AS_THE_WEIGHTS


def _network(
    recipe: Recipe, request: Request, card: Card | None, sets_size: bool
) -> tuple[ModelSpec, ImageSpec]:
    """The network and its preprocessing: of --from, else of --model, else of the recipe."""
    usual = recipe.images.size if card is None or sets_size else card.model.size
    size = pair("--size", request.size or usual)
    if card is None:
        model = replace(recipe.model, size=size)
        if request.model is not None:
            model = catalog.model(request.model, size=size)
        return model, replace(recipe.images, size=size)
    # the pre-logits layer is dropped and the head new (section 3.2 of the paper); training is RGB
    model = replace(card.model, size=size, representation=0, channels=3)
    images = replace(card.images, size=size)
    if sets_size:
        images = replace(images, fit=recipe.images.fit, crop=recipe.images.crop)
    if len(images.mean) != 3:
        images = replace(images, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return model, images


def _shortened(recipe: Recipe, amount: float) -> Recipe:
    """Another length in epochs; the warm-up and the cooldown keep their shares of the run."""
    length = recipe.length

    def scaled(part: Duration) -> Duration:
        alike = length.unit == part.unit == "epochs"
        return epochs(part.amount / length.amount * amount) if alike else part

    schedule = recipe.schedule
    schedule = replace(schedule, warmup=scaled(schedule.warmup), cooldown=scaled(schedule.cooldown))
    return replace(recipe, length=epochs(amount), schedule=schedule)
