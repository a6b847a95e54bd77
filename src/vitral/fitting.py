"""Fits to any model, and any images of its classes, what training fits at its end.

result = fit("flowers", "photos/")               # into the artifact itself
result = fit("timm/NAME", "photos/", out="mine") # into a new one
vitral.load(result).predict("img.jpg").foreign
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vitral.classifier import Classifier
from vitral.data import class_tree
from vitral.data.fitting_sets import FittingSet, open_for_fitting
from vitral.data.loader import eval_batches, eval_workers, with_progress
from vitral.data.near_duplicates import Tick
from vitral.data.sources import LEFT_OUT, Problem, Split
from vitral.errors import DataError, UsageError
from vitral.evaluation import fit as fitting
from vitral.evaluation import foreign
from vitral.evaluation.answer_sets import LEVEL, SetCalibration
from vitral.evaluation.fit import Fitted
from vitral.evaluation.foreign import Sample
from vitral.evaluation.outputs import Outputs, compute_outputs
from vitral.loading import from_weights
from vitral.specs.tree import ClassTree
from vitral.storage import files
from vitral.weights import artifact
from vitral.weights.card import Card
from vitral.weights.download import is_id
from vitral.weights.read import Weights, is_artifact, read_weights
from vitral.wording import first_lines, listed

MOST_NOTES = 5  # images left out that are named


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """A record of what was fitted, to what, and where it is.

    Attributes:
        path: the artifact that has it now.
        data: what the images were called.
        fitted: all of it; before: what the artifact had.
        learnt, held_out: images that were there of either kind.
        as_trained: whether the model's training divided them so.
        notes: what should be known, in sentences.
    """

    path: Path
    data: str
    fitted: Fitted
    before: Fitted
    learnt: int
    held_out: int
    as_trained: bool
    notes: tuple[str, ...] = ()

    def __fspath__(self) -> str:
        return str(self.path)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        calibration = self.fitted.calibration
        return {
            "written": str(self.path),
            "data": self.data,
            "train": self.learnt,
            "held_out": self.held_out,
            "divided_as_trained": self.as_trained,
            "calibration": None if calibration is None else calibration.to_dict(),
            **self.fitted.to_dict(),
            "notes": list(self.notes),
        }

    def lines(self) -> Iterator[str]:
        """Write for a terminal what was done."""
        divided = "as its training divided them"
        if not self.as_trained:
            divided = "not known from its training; those that it has learnt from would flatter it"
        yield (
            f"data      {self.data}: {self.learnt:,} training and {self.held_out:,} held-out "
            f"images, {divided}"
        )
        calibration = self.fitted.calibration
        if calibration is None:
            yield "sure      a model that gives several labels has no temperature or threshold"
        else:
            yield (
                f"sure      temperature {calibration.temperature:.3g}, from a probability of "
                f"{calibration.threshold:.3f} on{_was(self.before)}"
            )
        detector = self.fitted.foreign
        told = (
            "cannot be told: the features are all alike" if detector is None else detector.summary
        )
        yield f"foreign   {told}"
        if self.fitted.sets is not None:
            yield f"sets      {self.fitted.sets.rule(LEVEL, 'adaptive').guarantee()}"
        if self.fitted.tree is not None and self.fitted.tree.threshold is not None:
            yield (
                f"groups    answered where the class is unsure, from a probability of "
                f"{self.fitted.tree.threshold:.3f} on"
            )
        yield from self.notes
        yield f"written: {self.path}"


def _was(before: Fitted) -> str:
    old = before.calibration
    return "" if old is None else f" (was {old.temperature:.3g}, {old.threshold:.3f})"


def fit(  # noqa: PLR0913 - each has a name at every call
    run: str | os.PathLike[str],
    data: str | Path,
    *,
    out: str | os.PathLike[str] | None = None,
    tree: str | os.PathLike[str] | None = None,
    allow_unknown: bool = False,
    device: str | None = None,
    batch: int = 64,
    tick: Tick | None = None,
    announce: Callable[[str], None] = print,
) -> FitResult:
    """Fit to labelled images of a model what training fits: temperature, answer sets and the rest.

    The weights stay as they are. Data that the model was trained on is divided as its training
    did; other data has its own held-out images, or every fifth is held out.

    Args:
        run: a run folder (its best/), an artifact, any checkpoint or its id.
        data: labelled images, as for `vitral.train`.
        out: a new folder for the artifact; None writes into the artifact itself, all or nothing.
        tree: a table of class,parent that groups the classes; None keeps the groups that the model
            has.
        allow_unknown: leave out images of classes that the model does not know.
        device, announce: as of `vitral.load`.
        batch: images at a time.
        tick: called with (images seen, images in all).

    Raises UsageError for an `out` that exists, and without one for weights that are no artifact;
    DataError for images that cannot be used; WeightsError and ModelError as `vitral.load` does.
    """
    target = _target(run, out, data)
    weights = read_weights(run, announce=announce)
    for decision in weights.decisions:
        announce(decision.sentence)
    before = _had(weights)
    classifier = from_weights(replace(weights, fitted={}), device=device)
    classifier.refuse_without_head()
    groups, note = _groups(classifier, tree, str(data))
    images = open_for_fitting(
        data,
        classifier.classes,
        division=classifier.card.division,
        size=max(classifier.card.images.size),
        allow_unknown=allow_unknown,
    )
    several = classifier.task.multi_label
    if images.held_out.labels.ndim > 1 and not several:
        raise DataError(
            f"The images of {data} have several labels each, and the model names one; give it "
            f"images with one label."
        )
    observer = Observer(classifier, batch, tick, [])
    fitted = _fitted(observer, images, classifier, groups)
    result = FitResult(
        path=target,
        data=str(data),
        fitted=fitted,
        before=before,
        learnt=len(images.learnt),
        held_out=len(images.held_out),
        as_trained=images.as_trained,
        notes=(*note, *_notes(images, classifier, observer.failed)),
    )
    _write(result, weights, in_place=out is None)
    return result


def _fitted(
    observer: Observer, images: FittingSet, classifier: Classifier, groups: ClassTree | None
) -> Fitted:
    """Everything that the two parts of the images give."""
    held = observer.computed(images.held_out, classifier.engine.logits)
    fitted = fitting.fit(
        classifier.task.kind,
        held.values,
        _labels(held, classifier),
        classifier.classes,
        groups,
        fresh=not images.as_trained or not _chose_weights(classifier.card),
        of_training=images.as_trained,
    )
    if (
        images.undivided and not classifier.task.multi_label
    ):  # fresh images, every one of which may count
        more = observer.computed(images.learnt, classifier.engine.logits)
        both = [np.concatenate(pair) for pair in zip(_pair(held), _pair(more), strict=True)]
        fitted = replace(fitted, sets=SetCalibration.of(*both, fresh=True))
    chosen = foreign.chosen_rows(images.learnt.labels, by_class=True)
    learnt = observer.sample(images.learnt.select(chosen))
    others = foreign.chosen_rows(images.held_out.labels, by_class=False)
    held_out = observer.sample(images.held_out.select(others))
    return fitting.with_foreign(fitted, classifier.task.kind, learnt, held_out)


def _target(
    run: str | os.PathLike[str], out: str | os.PathLike[str] | None, data: str | Path
) -> Path:
    """The artifact that is written; UsageError where it may not be."""
    if out is not None:
        files.refuse_existing(Path(out))
        files.refuse_inside(Path(out), str(data))
        return Path(out)
    if not is_artifact(Path(run)) and not Path(run).exists() and not is_id(os.fspath(run)):
        return artifact.locate(Path(run))  # which says that it is not there
    if not is_artifact(Path(run)):
        raise UsageError(
            f"{os.fspath(run)} is no artifact folder that could keep what is fitted. Name a new "
            f"folder for one: --out DIR."
        )
    return artifact.locate(Path(run))


def _groups(
    classifier: Classifier, tree: str | os.PathLike[str] | None, data: str
) -> tuple[ClassTree | None, tuple[str, ...]]:
    """The groups of the classes, and what is to be said of them.

    They are those that are named, else those that the model has, else those beside the images.
    """
    if tree is None and (classifier.card.tree is not None or classifier.task.multi_label):
        return classifier.card.tree, ()
    tree = class_tree.beside(data) if tree is None else tree
    if tree is None:
        return None, ()
    if classifier.task.multi_label:
        raise UsageError(
            "A tree groups classes that exclude each other, and this model gives any number of "
            "labels. Leave --tree out."
        )
    kept, decision = class_tree.of_classes(
        class_tree.read(tree), classifier.classes, os.fspath(tree)
    )
    return kept, (f"groups    {decision.sentence}",)


def _had(weights: Weights) -> Fitted:
    """What was fitted before, as far as it can still be told."""
    return Fitted(calibration=weights.card.calibration)


@dataclass(frozen=True, slots=True)
class Observer:
    """An observer looks at split after split through a network.

    Attributes:
        classifier: the model and its engine.
        batch: images at a time.
        tick: told of progress.
        failed: images so far that could not be read.
    """

    classifier: Classifier
    batch: int
    tick: Tick | None
    failed: list[Problem]

    def computed(self, split: Split, compute: Callable[[Tensor], np.ndarray]) -> Outputs:
        """Compute something of every image; DataError where none can be read."""
        engine = self.classifier.engine
        spec = self.classifier.card.images
        workers = eval_workers(split, engine.device)
        batches = eval_batches(split, spec, batch=self.batch, workers=workers)
        batches = with_progress(batches, self.tick, len(split))
        outputs = compute_outputs(compute, batches, spec, engine.device)
        self.failed.extend(outputs.failed)
        if not len(outputs.indices):
            first = outputs.failed[0]
            raise DataError(
                f"None of the {len(split)} images can be read, for example "
                f"{first.path}: {first.reason}"
            )
        return outputs

    def sample(self, split: Split) -> Sample:
        """Compute logits and features of every image."""

        def compute(images: Tensor) -> np.ndarray:
            both = self.classifier.engine.logits_and_detector_features(images)
            return np.concatenate(both, axis=1)

        outputs = self.computed(split, compute)
        labels = _labels(outputs, self.classifier)
        return Sample.of(outputs.values, labels, self.classifier.card.model)


def _chose_weights(card: Card) -> bool:
    """Whether the held-out images of a training decided which weights were kept, or when it ended.

    So it is taken to be where the artifact does not say.
    """
    recipe: Any = card.made_by.get("recipe")
    try:
        return recipe["select"] != "last" or recipe["patience"] is not None
    except (KeyError, TypeError):
        return True


def _pair(outputs: Outputs) -> tuple[np.ndarray, np.ndarray]:
    return outputs.values, outputs.labels


def _labels(outputs: Outputs, classifier: Classifier) -> np.ndarray:
    """Labels as the task has them: a multi-label model may be given images that have one each."""
    if classifier.task.multi_label and outputs.labels.ndim == 1:
        return np.asarray(outputs.labels[:, None] == np.arange(len(classifier.classes)))
    return outputs.labels


def _notes(images: FittingSet, classifier: Classifier, failed: list[Problem]) -> Iterator[str]:
    labels = images.learnt.labels
    counts = labels.sum(0) if labels.ndim > 1 else np.bincount(labels, minlength=1)
    counts = np.pad(counts, (0, len(classifier.classes) - len(counts)))
    missing = [name for name, count in zip(classifier.classes, counts, strict=True) if not count]
    if missing:
        yield (
            f"{len(missing)} of {len(counts)} classes have no image here ({listed(missing, 3)}): "
            f"images of them will be called foreign"
        )
    if images.unknown:
        total = sum(images.unknown.values())
        yield f"left out  {total:,} images of classes that the model does not know"
    if len(images.held_out) < foreign.FEW:
        yield (
            f"only {len(images.held_out)} images were held out: temperature and limits are rough"
        )
    lost = [problem for problem in images.problems if problem.code in LEFT_OUT] + failed
    named = (f"left out  {problem.path}: {problem.reason}" for problem in dict.fromkeys(lost))
    yield from first_lines(named, MOST_NOTES, " images left out")


def _write(result: FitResult, weights: Weights, *, in_place: bool) -> None:
    made_by = dict(weights.card.made_by)
    if weights.source is not None and weights.layout is not None:
        made_by["layout"] = asdict(weights.layout)  # the way back to its own format
    made_by["fitted"] = {
        "data": result.data,
        "train": result.learnt,
        "held_out": result.held_out,
        "divided_as_trained": result.as_trained,
        **result.fitted.to_dict(),
    }
    card = replace(weights.card, made_by=made_by, calibration=result.fitted.calibration)
    card = replace(card, tree=result.fitted.tree)
    arrays = result.fitted.arrays()
    if in_place:
        artifact.save_fitted(result.path, card, arrays)
    else:
        artifact.save(result.path, weights.tensors, card, weights.passthrough, arrays)
