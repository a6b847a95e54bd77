"""The origin of each value of a resolved recipe: the recipe, an option, the weights, --set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vitral.planning.request import Request
from vitral.specs import ImageSpec
from vitral.specs.fields import flat
from vitral.training.recipe import Recipe


class Stage(NamedTuple):
    """A change of a recipe: its label, and the recipe with it."""

    label: str
    recipe: Recipe


def origins_of(stages: Sequence[Stage], request: Request) -> dict[str, str]:
    """Name, for each dotted field, the last stage or the option that decided it.

    The fields that nothing decided are a "default".
    """
    first = stages[0].recipe
    unchanged = Recipe(model=first.model, images=ImageSpec(size=first.images.size)).to_dict()
    before = {k: v for k, v in flat(unchanged).items() if not k.startswith("model.")}
    result: dict[str, str] = {}
    for label, recipe in stages:
        now = flat(recipe.to_dict())
        changed = (key for key in now if key not in before or before[key] != now[key])
        result |= dict.fromkeys(changed, label)
        before = now
    result["images.size"] = result["model.size"]  # one value under two names
    if network := f"--model {request.model}" if request.model else request.start and "the weights":
        whole = (key for key in before if key.startswith("model.") and key != "model.size")
        result |= dict.fromkeys(whole, network)  # also what is there by chance what it was
    options = (
        ("data.source", "DATA", request.data or None),
        ("start", "--from", request.start),
        ("model.size", "--size", request.size),
        ("images.size", "--size", request.size),
        ("length", "--epochs", request.epochs),
        ("data.batch", "--batch", request.batch),
        ("tune", "--tune", request.tune),
        ("seed", "--seed", request.seed),
        ("data.class_file", "--classes", request.classes),
        ("data.label_file", "--labels", request.labels),
    )
    result |= {key: option for key, option, value in options if value is not None}
    result |= {change.partition("=")[0].strip(): "--set" for change in request.changes}
    return {key: result.get(key, "default") for key in before}
