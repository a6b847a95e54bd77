"""Runs by name: every module here is one run on one screen; `resolve` turns a request into one."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vitral import catalog
from vitral.errors import UsageError
from vitral.spec import ImageSpec, ModelSpec
from vitral.spec.fields import suggest
from vitral.training.folder import Run, default_path
from vitral.training.loop import train as run_recipe
from vitral.training.recipe import Recipe, epochs, override
from vitral.weights import incoming

BUILT_IN = {"digits": "digits", "shapes": "shapes"}  # recipes made for a built-in source
DEFAULT, FROM_WEIGHTS = "scratch-small", "finetune"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a person asked for on the command line or in Python; None leaves it to the recipe."""

    data: str
    start: str | None = None
    recipe: str | None = None
    model: str | None = None
    size: int | tuple[int, int] | None = None
    epochs: float | None = None
    batch: int | None = None
    seed: int | None = None
    changes: Sequence[str] = ()


def names() -> list[str]:
    """The recipes that --recipe accepts."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def named(name: str) -> Recipe:
    """The recipe of that name; UsageError with 'did you mean' when there is none."""
    if name not in names():
        raise UsageError(f"There is no recipe '{name}'; {suggest(name, names())}")
    recipe: Recipe = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").recipe
    return recipe


def resolve(request: Request) -> Recipe:
    """The recipe that a request means: the named or default one, with what was asked changed.

    `--set` is applied last and wins.
    """
    fallback = FROM_WEIGHTS if request.start else BUILT_IN.get(request.data, DEFAULT)
    recipe = named(request.recipe or fallback)
    model, images = _network(recipe, request)
    batch = recipe.data.batch if request.batch is None else request.batch
    data = replace(recipe.data, source=str(request.data), batch=batch)
    recipe = replace(
        recipe,
        model=model,
        images=images,
        start=request.start,
        data=data,
        seed=recipe.seed if request.seed is None else request.seed,
    )
    if model.is_resnet:  # no residual branches of a transformer to drop
        recipe = replace(recipe, drop_path=0.0, dropout=0.0)
    if request.epochs is not None:
        recipe = _shortened(recipe, request.epochs)
    if isinstance(request.changes, str) or any(
        c.startswith("data.source") for c in request.changes
    ):
        raise UsageError("Changes are a list like ['optimizer.lr=3e-4']; the data is not one.")
    return override(recipe, request.changes) if request.changes else recipe


def _network(recipe: Recipe, request: Request) -> tuple[ModelSpec, ImageSpec]:
    """The network and its preprocessing: of --from, else of --model, else of the recipe."""
    if request.start is None:
        if request.recipe == FROM_WEIGHTS:
            raise UsageError(f"The recipe {FROM_WEIGHTS} starts from weights: --from WEIGHTS.")
        size = request.size if request.size is not None else recipe.images.size
        if request.model is not None:
            model = catalog.model(request.model, size=size)
        else:
            model = replace(recipe.model, size=(size, size) if isinstance(size, int) else size)
        return model, replace(recipe.images, size=model.size)
    if request.model is not None:
        raise UsageError("The weights of --from bring their model; leave --model out.")
    card = incoming.read(request.start, announce=_announce).card
    size = request.size if request.size is not None else card.model.size
    # the pre-logits layer is dropped and the head new (section 3.2 of the paper); training is RGB
    square = (size, size) if isinstance(size, int) else size
    model = replace(card.model, size=square, representation=0, channels=3)
    images = replace(card.images, size=model.size)
    if len(images.mean) != 3:
        images = replace(images, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return model, images


def _announce(line: str) -> None:
    print(line, file=sys.stderr)


def train(  # noqa: PLR0913 - one argument per option of the command
    data: str | Path,
    *,
    start: str | Path | None = None,
    model: str | None = None,
    epochs: float | None = None,
    size: int | tuple[int, int] | None = None,
    recipe: str | None = None,
    out: str | Path | None = None,
    changes: Sequence[str] = (),
) -> Run:
    """Train on a folder of class folders or a built-in source; the same as `vitral train`.

    Args:
        data: the folder, or "digits" or "shapes".
        start: weights to fine-tune: a run, an artifact, a checkpoint or an id like "timm/...".
        model: a name of the catalogue such as "S/16"; size: pixels, or (height, width).
        epochs: passes over the images; recipe: a name from `vitral.recipes.names()`.
        out: the run folder; by default a new dated one under runs/.
        changes: assignments such as "optimizer.lr=3e-4", as after --set.

    Returns the run: its `path`, and the `evaluation` of its best weights.
    """
    asked = Request(
        data=str(data),
        start=None if start is None else str(start),
        recipe=recipe,
        model=model,
        size=size,
        epochs=epochs,
        changes=changes,
    )
    resolved = resolve(asked)
    path = Path(out) if out is not None else default_path(str(data), resolved.model.name)
    return run_recipe(resolved, path)


def _shortened(recipe: Recipe, amount: float) -> Recipe:
    """Another length in epochs; the warm-up keeps its share of the run."""
    if recipe.length.unit == "epochs" and recipe.warmup.unit == "epochs":
        share = recipe.warmup.amount / recipe.length.amount
        return replace(recipe, length=epochs(amount), warmup=epochs(share * amount))
    return replace(recipe, length=epochs(amount))
