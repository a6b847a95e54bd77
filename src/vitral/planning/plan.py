"""A run before it begins: its images are opened once, its first weights read once, then it is run.

    planned = plan(Request(data="photos/", start="timm/NAME"))
    loop.train(planned.recipe, planned.data, planned.weights, Path("run"))

`train` is what `vitral.train` means; `resume` goes on with a run folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vitral.data.bands import value_range
from vitral.data.datasets import open_dataset
from vitral.data.decisions import Decision, in_order
from vitral.data.problems import refuse_bands
from vitral.data.sources import Dataset
from vitral.engines.torch_engine import best_device
from vitral.errors import DataError, UsageError
from vitral.evaluation.mirror import Mirror, look_in_the_mirror
from vitral.planning import benchmark
from vitral.planning.choose import Facts, choose
from vitral.planning.origins import origins_of
from vitral.planning.request import Request
from vitral.planning.resolve import draft, resolve
from vitral.training import loop, run_folder, state
from vitral.training.display import Display
from vitral.training.recipe import Classification, Data, Recipe, Tune
from vitral.training.run_folder import Run
from vitral.weights.adapt import kept_rows
from vitral.weights.card import Card
from vitral.weights.known_classes import Renames, renamed
from vitral.weights.read import Weights, read_weights
from vitral.wording import did_you_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A run that has not begun.

    Attributes:
        name, reason: of the recipe that was chosen.
        recipe: with everything that was asked.
        origins: dotted field -> where its value comes from.
        data: the open images.
        weights: what the recipe's `start` names; None where new ones are drawn.
        mirror: what flips would do to the classes; None where nothing flips or can be said.
    """

    name: str
    reason: str
    recipe: Recipe
    origins: Mapping[str, str]
    data: Dataset
    weights: Weights | None
    mirror: Mirror | None = None

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Everything that was chosen for the user, which a person should read before the run."""
        recipe = Decision("recipe", f"{self.name}: {self.reason}")
        of_weights = () if self.weights is None else self.weights.decisions
        fit = Decision("fit", self.recipe.images.sentence)
        pixels = self.recipe.images.sentence_of_bands
        bands = [Decision("pixels", pixels)] if pixels else []
        flips = []
        if self.mirror is not None and self.mirror.sentence:
            pairs = tuple((pair.first, pair.second) for pair in self.mirror.pairs)
            flips.append(Decision("flips", self.mirror.sentence, pairs))
        head = self._of_the_head
        return in_order([recipe, *self.data.decisions, *of_weights, *head, *bands, *flips, fit])

    @property
    def _of_the_head(self) -> tuple[Decision, ...]:
        """What becomes of the head of the weights, where it knows some of the classes."""
        if self.weights is None or not self.recipe.labelled:
            return ()
        known = kept_rows(self.weights, self.recipe.model, self.data.classes)
        if not known.kept or not (known.new or known.dropped):
            return ()
        return (Decision("start", known.line(solved=self.recipe.tune.kind == "probe")),)


def plan(request: Request) -> Plan:
    """Open the data, choose the recipe by it, and apply what was asked.

    Raises UsageError or SpecError for a request that makes no recipe, DataError for unusable data,
    WeightsError for weights that cannot be read.
    """
    drafted = draft(request)
    weights = None if drafted.start is None else first_weights(drafted.start, drafted.rename)
    # those of a recipe.json come without their card: it has the network and the preprocessing
    card = None if weights is None or request.start is None else weights.card
    size = drafted.size or (None if card is None else card.model.size)
    images = drafted.data
    if request.keep and card is not None:
        images = replace(images, known=card.classes)
    data = open_data(images, size, labelled=drafted.labelled)
    refuse_names(request, data, card)
    facts = Facts.of(data)
    name, reason = choose(request, facts, None if card is None else card.model)
    stages = resolve(request, name, facts, card)
    recipe = stages[-1].recipe
    if recipe.data.source == "shapes" and recipe.images.size != size:  # drawn as they are seen
        data = open_data(recipe.data, recipe.images.size, labelled=recipe.labelled)
    refuse_labels(recipe, data)
    recipe, measured = with_bands(recipe, data)
    return Plan(
        name=name,
        reason=reason,
        recipe=recipe,
        origins={**origins_of(stages, request), **measured},
        data=data,
        weights=weights,
        mirror=_mirror(recipe, data),
    )


def _mirror(recipe: Recipe, data: Dataset) -> Mirror | None:
    """What flips would do to the classes, where the recipe flips; the first process looks."""
    labels = isinstance(recipe.objective, Classification)
    first = os.environ.get("RANK", "0") == "0"
    if not (labels and first and recipe.augment.flip > 0):
        return None
    return look_in_the_mirror(data.train, data.classes, recipe.images)


def open_data(settings: Data, size: tuple[int, int] | None, *, labelled: bool = True) -> Dataset:
    """Open and split the images of a recipe.

    `size` is its network's, at which shapes are drawn; `labelled` says whether labels are needed.
    """
    return open_dataset(
        settings.source,
        seed=settings.split_seed,
        val_fraction=settings.val_fraction,
        size=None if size is None else max(size),
        count=settings.count,
        allow_unreadable=settings.allow_unreadable,
        known=settings.known,
        tree=settings.tree,
        class_file=settings.class_file,
        label_file=settings.label_file,
        groups=settings.groups,
        label_column=settings.label_column,
        labelled=labelled,
    )


def with_bands(recipe: Recipe, data: Dataset) -> tuple[Recipe, dict[str, str]]:
    """The recipe with the range of values of TIFFs of which it shows three bands, and its origin.

    Raises DataError for such TIFFs where nobody chose the bands.
    """
    images = recipe.images
    if images.bands is None:
        refuse_bands(data.banded, data.source)
        return recipe, {}
    if images.value_range is not None:
        return recipe, {}
    measured = value_range(data.train, images.bands)
    images = replace(images, value_range=measured)
    return replace(recipe, images=images), {"images.value_range": "measured on the images"}


def refuse_labels(recipe: Recipe, data: Dataset) -> None:
    """Raise DataError for labels that the recipe's objective cannot learn."""
    goal = recipe.objective
    if not isinstance(goal, Classification):
        return
    if data.multi_label and (goal.loss == "softmax" or recipe.tune.kind == "probe"):
        raise DataError(
            f"{data.source} gives several labels to an image, and a softmax knows one. Train each "
            f"class for itself: --set objective.loss=bce (and without --tune probe)."
        )
    if data.multi_label and goal.teacher is not None and goal.distill != "known":
        raise DataError(
            f"{data.source} gives several labels to an image, and a teacher answers with one. "
            f"Leave objective.teacher out."
        )


def refuse_names(request: Request, data: Dataset, card: Card | None) -> None:
    """Raise DataError for a new name that nothing has, and for old answers of another kind."""
    for old, new in request.rename:
        if new not in data.classes:
            raise DataError(
                f"--rename {old}={new}: {data.source} has no class '{new}'; "
                f"{did_you_mean(new, data.classes)} (--keep keeps a class without images.)"
            )
    if request.keep and card is not None and (card.labels == "several") != data.multi_label:
        raise DataError(
            f"--keep: the weights give an image {card.labels} of their classes, and {data.source} "
            f"labels it otherwise. Label the images as those were, or leave --keep out."
        )


def first_weights(start: str, rename: Renames = ()) -> Weights:
    """Read weights to start from; a download is announced on the standard error."""
    weights = read_weights(
        start, announce=lambda line: print(line, file=sys.stderr), unusable_head="drop"
    )
    return renamed(weights, rename)


Anywhere = str | os.PathLike[str]


def train(  # noqa: PLR0913 - one argument per option of the command
    data: Anywhere | None = None,
    *,
    start: Anywhere | None = None,
    model: str | None = None,
    recipe: Anywhere | None = None,
    tune: str | None = None,
    epochs: float | None = None,
    size: int | tuple[int, int] | None = None,
    batch: int | Literal["auto"] | None = None,
    seed: int | None = None,
    tree: Anywhere | None = None,
    changes: Sequence[str] = (),
    keep: bool = False,
    rename: Mapping[str, str] | None = None,
    classes: Anywhere | None = None,
    labels: Anywhere | None = None,
    out: Anywhere | None = None,
    resume: Anywhere | None = None,
    device: str | None = None,
    shard: bool = False,
    log: Sequence[str] = (),
) -> Run:
    """Train a model on images, as `vitral train` does, and return the finished run.

    Args:
        data: a folder of class folders, a CSV file, tar shards, parquet or arrow files, "hf:NAME",
            or a built-in source, "digits" or "shapes". Beside `resume` only where the images of
            that run lie elsewhere now.
        start: weights to fine-tune, which bring their model: a run (its folder, or what this
            function returned), an artifact, a checkpoint or an id like "timm/NAME"; None begins
            with new ones.
        model: a name of the catalogue such as "S/16"; by default the recipe's, or that of `start`.
        recipe: a name from `vitral.recipes.names()`, or the recipe.json of a run; by default it is
            chosen by the data and by `start`.
        tune: what learns: "full", "probe", "last:N", "lora" or "lora:RANK".
        epochs: passes over the images; by default the recipe's length.
        size: pixels of the images that the model reads, or (height, width).
        batch: images per step; "auto" cuts the recipe's into the parts measured to be fastest.
        seed: of weights, order and augmentation.
        tree: the groups of the classes: a table of class,parent, "folders" or "none"; by default
            classes.csv beside the images, where there is one.
        changes: assignments such as "optimizer.lr=3e-4", as after --set; they win.
        keep: go on knowing the classes that `start` knows, whether or not `data` has them: its
            answers are learnt beside the labels.
        rename: the new names of classes of `start`, by the old ones.
        classes: a file of class names, for folders or labels that are numbers.
        labels: a file of corrections of labels, as `vitral label` writes it.
        out: the run folder; by default a new dated one under runs/.
        resume: a run to go on with exactly as it began, so that none of the above goes with it but
            `data`.
        device: such as "cuda:1"; by default the fastest.
        shard: give each process a piece of the network, where torchrun started several.
        log: further places for the record: "tensorboard", "wandb", "mlflow" or "trackio".

    Returns the run: its `path`, and the `evaluation` of its best weights. Raises UsageError or
    SpecError for a request that makes no recipe, DataError for unusable data, WeightsError for
    weights that cannot be read, ModelError when training diverges, and Interrupted after Ctrl-C.
    """
    request = Request(
        data=_place("data", data) or "",
        start=_place("start", start),
        recipe=_place("recipe", recipe),
        model=model,
        tune=None if tune is None else Tune.parse(tune, "tune"),
        size=size,
        epochs=epochs,
        batch=None if batch in (None, "auto") else _images_per_step(batch),
        seed=seed,
        tree=_place("tree", tree),
        changes=changes if isinstance(changes, str) else tuple(changes),
        keep=keep,
        rename=tuple((rename or {}).items()),
        classes=_place("classes", classes),
        labels=_place("labels", labels),
    )
    log = (log,) if isinstance(log, str) else log
    folder = None if out is None else Path(_place("out", out) or "")
    if resume is not None:
        run = Path(_place("resume", resume) or "")
        refuse_beside_resume(run, request, measured=batch == "auto", out=folder)
        return _go_on(run, request.data, device=device, shard=shard, log=log)
    planned = plan(request)
    if batch == "auto":
        planned = _in_fastest_parts(planned, device)
    with run_folder.new_folder(folder, request.data, planned.recipe.model.name) as path:
        return loop.train(
            planned.recipe,
            planned.data,
            planned.weights,
            path,
            decisions=planned.decisions,
            device=device,
            shard=shard,
            log=log,
        )


def _in_fastest_parts(planned: Plan, device: str | None) -> Plan:
    """The plan with its steps in the parts that a device computes fastest."""
    recipe = benchmark.in_fastest_parts(planned.recipe, best_device(device))
    return replace(planned, recipe=recipe)


def _place(name: str, value: Anywhere | None) -> str | None:
    """The text of a path or a name; UsageError for what is neither."""
    if value is None:
        return None
    try:
        return os.fspath(value)
    except TypeError:
        raise UsageError(
            f"{name} is a path, a name, or a run as vitral.train returned it, not a "
            f"{type(value).__name__}."
        ) from None


def _images_per_step(batch: object) -> int:
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise UsageError(f"batch is images per step, at least 1, or 'auto', not {batch!r}.")
    return batch


def refuse_beside_resume(
    run: Path, request: Request, *, measured: bool = False, out: Path | None = None
) -> None:
    """Raise UsageError for what cannot go with a resume, which the command that can does name.

    The images may be named, where they lie elsewhere now. `measured` is --batch auto.
    """
    if out is not None:
        raise UsageError(f"--resume goes on in {run} itself; leave --out out.")
    asked = replace(request, data="")
    if asked == Request() and not measured:
        return
    recipe, _ = run_folder.read(run)
    words = [word for word in asked.options() if word.startswith("--")]
    words += ["--batch auto"] if measured else []
    if asked.start is None and asked.model is None:
        asked = replace(asked, start=str(run))
    why = "What is set otherwise is another run"
    if asked.epochs is not None:
        why = f"Its learning rate ends with its {recipe.length}: a longer one is another run"
    if asked.start == str(run):
        why += ", from these weights"
        if not (run / "last").exists():
            why = f"Finish it first: vitral train --resume {run}. {why}"
    raise UsageError(
        f"--resume goes on exactly as {run} began, so it takes no {', '.join(dict.fromkeys(words))}"
        f". {why}: {asked.command(request.data or recipe.data.source)}"
    )


def resume(
    out: Path,
    data: str = "",
    *,
    device: str | None = None,
    display: Display | None = None,
    shard: bool = False,
    log: Sequence[str] = (),
) -> Run:
    """Go on with the run in `out`; see `vitral.training.loop.resume`.

    `data` names its images where they lie elsewhere now. The weights that it began from are read
    only where no whole state is left.
    """
    recipe, _ = run_folder.read(out)
    settings = replace(recipe.data, source=data or recipe.data.source)
    try:
        images = open_data(settings, recipe.images.size, labelled=recipe.labelled)
    except DataError as error:
        if data or Path(settings.source).exists():
            raise
        raise DataError(
            f"{error} If the images of {out} lie elsewhere now: vitral train PLACE --resume {out}"
        ) from None
    weights = None
    if recipe.start is not None and not state.exists(out / "state"):
        weights = first_weights(recipe.start, recipe.rename)
    return loop.resume(images, weights, out, device=device, display=display, shard=shard, log=log)


_go_on = resume  # `train` has an argument of that name
