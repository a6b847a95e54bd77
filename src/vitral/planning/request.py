"""A request: everything that a person asks of a run, before anything is opened."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from vitral.errors import UsageError
from vitral.training.recipe import Tune

NOT_SET = {
    "data.source": "the images are named by themselves, vitral train PHOTOS/",
    "model.classes": "the classes are those of the images",
    "model.name": "a model is named by --model",
    "objective.kind": "what is learnt is the recipe's, --recipe NAME",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The wishes of a person on the command line or in Python; None leaves it to the recipe.

    Attributes:
        data: the images; a recipe.json brings its own.
        start: the weights of --from: a run, an artifact, a checkpoint or an id.
        recipe: a name, or the recipe.json of a run (or its folder).
        model: a name of the catalogue.
        size: pixels, or (height, width).
        epochs: passes over the images.
        batch: images per optimizer step.
        tune: what learns.
        seed: of the weights, the order and every augmentation.
        tree: the groups of the classes: a file, "folders" or "none".
        changes: assignments of --set, such as "optimizer.lr=3e-4".
        keep: whether the classes that the weights of --from know are kept, and how they answer.
        rename: (old, new) names of classes of those weights.
        classes: a file of class names.
        labels: a file of corrections of labels.

    Raises UsageError or SpecError for what no images and no weights could make right.
    """

    data: str = ""
    start: str | None = None
    recipe: str | None = None
    model: str | None = None
    size: int | tuple[int, int] | None = None
    epochs: float | None = None
    batch: int | None = None
    tune: Tune | None = None
    seed: int | None = None
    tree: str | None = None
    changes: Sequence[str] = ()
    keep: bool = False
    rename: tuple[tuple[str, str], ...] = ()
    classes: str | None = None
    labels: str | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, before anything is read."""
        if self.start is not None and self.model is not None:
            raise UsageError("The weights of --from bring their model; leave --model out.")
        if self.start is None and (self.keep or self.rename):
            option = "--keep keeps what" if self.keep else "--rename renames classes that"
            raise UsageError(f"{option} the weights of --from know; name them: --from RUN.")
        if any(not old or not new or old == new for old, new in self.rename):
            raise UsageError("--rename is OLD=NEW, two names that differ.")
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise UsageError(f"--epochs is passes over the images, above 0, not {self.epochs}.")
        if isinstance(self.changes, str):
            raise UsageError("Changes are a list like ['optimizer.lr=3e-4'], not a text.")
        for field, why in NOT_SET.items():
            if any(change.partition("=")[0].strip() == field for change in self.changes):
                raise UsageError(f"{field} cannot be set: {why}.")

    def options(self) -> list[str]:
        """Return the words that ask for the same on the command line, the images left out."""
        size = self.size if isinstance(self.size, int | None) else "x".join(map(str, self.size))
        named = {
            "--from": self.start,
            "--recipe": self.recipe,
            "--model": self.model,
            "--tune": self.tune,
            "--epochs": None if self.epochs is None else f"{self.epochs:g}",
            "--size": size,
            "--batch": self.batch,
            "--seed": self.seed,
            "--tree": self.tree,
            "--classes": self.classes,
            "--labels": self.labels,
        }
        words = [word for name, x in named.items() if x is not None for word in (name, str(x))]
        words += ["--keep"] if self.keep else []
        words += [word for old, new in self.rename for word in ("--rename", f"{old}={new}")]
        return [*words, *(word for change in self.changes for word in ("--set", change))]

    def command(self, data: str) -> str:
        """Write the command that asks for the same of these images."""
        return shlex.join(["vitral", "train", data, *self.options()])
