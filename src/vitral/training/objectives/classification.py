"""Classification: the loss of labels, one to an image or several, and the accuracy beside it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral import evaluation
from vitral.data.loader import Batch, View
from vitral.errors import SpecError
from vitral.evaluation import Score, fit
from vitral.evaluation.answer_sets import LEVEL
from vitral.evaluation.fit import Fitted
from vitral.images import augment, preprocess
from vitral.model import ViT
from vitral.specs.task import TaskKind
from vitral.specs.tree import ClassTree
from vitral.training.objectives.base import Loss, Objective, Observed, StepPosition
from vitral.training.recipe import Classification, Recipe
from vitral.training.trailing import to_device


class ClassificationObjective(Objective):
    """Learns the labels of the images; every head learns them alike.

    Args:
        backbone: with one logit per class.
        recipe: its objective is a `Classification`.
        classes: their names, in the order of the logits.
        labels: of the training images, int64 (n,) or bool (n, classes); they weigh the loss.
    """

    def __init__(
        self, backbone: ViT, recipe: Recipe, classes: tuple[str, ...], labels: np.ndarray
    ) -> None:
        view = View(recipe.augment, recipe.images)
        super().__init__(backbone, recipe.images, [view], recipe.precision)
        assert isinstance(recipe.objective, Classification)
        self.settings = recipe.objective
        self.augment = recipe.augment
        self.classes = classes
        self.multi_label = labels.ndim == 2
        weights = class_weights(labels, len(classes), self.settings)
        self.class_weights = None if weights is None else weights.to(self.device)
        for head in (backbone.head, backbone.distillation_head):
            if isinstance(head, nn.Linear) and not bool(head.weight.any()):  # a new one
                nn.init.constant_(head.bias, self.settings.head_bias)

    def forward(self, batch: Batch, position: StepPosition) -> Loss:
        """Return the summed loss of the labels, mixed where the recipe mixes."""
        images, targets = self._prepared(batch, position)
        with self.autocast():
            outputs = self.backbone.logits_per_head(images, samples=position.samples)
        total = self.losses(outputs, targets, images).sum()
        if self.augment.mixes or self.multi_label:
            return Loss(total)
        mean = outputs[0] if len(outputs) == 1 else torch.stack(outputs).mean(0)
        right = (mean.detach().argmax(1) == targets).sum()
        return Loss(total, {"accuracy": right})

    def losses(self, outputs: tuple[Tensor, ...], targets: Tensor, images: Tensor) -> Tensor:
        """Return the loss of each image, float32 (B,), of the logits (B, classes) of each head."""
        return losses(
            outputs,
            targets,
            self.settings,
            weights=self.class_weights,
            multi_label=self.multi_label,
        )

    def observe(self, batch: Batch, backbone: ViT | None = None) -> Tensor:
        """Return the logits (B, classes); of two heads, their mean."""
        network = backbone or self.backbone
        images = preprocess.normalise(batch.images.to(self.device), self.images)
        with self.autocast():
            return network(images)

    def score(self, observed: Observed, fitted: Fitted | None = None) -> Score:
        """Return the evaluation; what is `fitted` was fitted to these very images."""
        fitted = fitted or Fitted()
        sets = fitted.sets
        return evaluation.evaluate(
            "multi_label" if self.multi_label else "single_label",
            observed.values,
            observed.labels,
            self.classes,
            observed.keys,
            calibration=fitted.calibration,
            cross_fit=True,
            tree=fitted.tree,
            rule=None if sets is None else sets.rule(LEVEL, "adaptive"),
        )

    def fit(
        self, observed: Observed, tree: ClassTree | None = None, *, fresh: bool = False
    ) -> Fitted:
        """Return what is fitted to these images; several labels have no calibration."""
        kind: TaskKind = "multi_label" if self.multi_label else "single_label"
        return fit.fit(kind, observed.values, observed.labels, self.classes, tree, fresh=fresh)

    def _prepared(self, batch: Batch, position: StepPosition) -> tuple[Tensor, Tensor]:
        """Return normalised images and targets, mixed where the recipe mixes."""
        images, labels = self._moved(batch)
        if self.augment.mixes:
            partner = None if batch.mix_partner is None else self._moved(batch.mix_partner)
            images, labels = augment.mix(
                images, labels, len(self.classes), self.augment, position.seed, partner
            )
        return images, labels

    def _moved(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the images, normalised, and the labels of a batch on the objective's device."""
        pixels = to_device(batch.images, self.device)
        labels = to_device(batch.labels, self.device)
        return preprocess.normalise(pixels, self.images), labels


def losses(
    outputs: tuple[Tensor, ...],
    targets: Tensor,
    settings: Classification,
    *,
    weights: Tensor | None = None,
    multi_label: bool = False,
) -> Tensor:
    """Return the loss of each image, float32 (B,); every head learns the labels and counts alike.

    Args:
        outputs: logits (B, classes) of each head.
        targets: classes, int64 (B,); mixed classes, float (B, classes); or several labels each,
            bool or mixed float (B, classes).
        settings: its loss and label_smoothing.
        weights: (classes,) of `class_weights`. An image counts as its class does, a mixed one as
            the mean of its classes; with several labels each class's column has its own.
        multi_label: whether an image may have several labels, or none.

    Raises SpecError for several labels with a softmax.
    """
    columns = weights if multi_label else None
    each = [
        label_losses(logits.float(), targets, settings, columns=columns, multi_label=multi_label)
        for logits in outputs
    ]
    mean = torch.stack(each).mean(0)
    return mean if multi_label else weighted(mean, targets, weights)


def label_losses(
    logits: Tensor,
    targets: Tensor,
    settings: Classification,
    *,
    columns: Tensor | None = None,
    multi_label: bool = False,
) -> Tensor:
    """Return the loss of each image, (B,), of one head's float32 logits; see `losses`.

    `columns` are (classes,) weights of the classes' own losses, for several labels.
    """
    smoothing = settings.label_smoothing
    match settings.loss:
        case "softmax" if multi_label:
            raise SpecError("Images with several labels need objective.loss sigmoid or bce.")
        case "softmax":
            return F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        case "sigmoid":
            return _binary(logits, _one_hot(targets, logits), columns).sum(1)
        case "bce":
            whole = (_one_hot(targets, logits) > 0).to(logits.dtype)
            # several labels are as many yes-or-no questions, one label is one of all classes
            spread = 0.5 if multi_label else 1.0 / logits.shape[1]
            whole = whole * (1 - smoothing) + smoothing * spread
            return _binary(logits, whole, columns).mean(1)
        case _:
            raise SpecError(f"There is no loss '{settings.loss}'.")


def weighted(each: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """Return the losses (B,) with each image counted as its class is, or as the mean of its mix.

    `targets` are classes, int64 (B,), or mixed classes, float (B, classes); `weights` (classes,)
    are those of `class_weights`, or None.
    """
    if weights is None:
        return each
    if targets.ndim == 1:
        return each * weights[targets]
    return each * ((targets * weights).sum(1) / targets.sum(1).clamp(min=1e-12))


def _binary(logits: Tensor, targets: Tensor, columns: Tensor | None) -> Tensor:
    """(B, classes): each class's own yes-or-no question."""
    return F.binary_cross_entropy_with_logits(logits, targets, columns, reduction="none")


def _one_hot(targets: Tensor, logits: Tensor) -> Tensor:
    """(B, classes) in the type of the logits."""
    if targets.ndim == 1:
        targets = F.one_hot(targets, logits.shape[1])
    return targets.to(logits.dtype)


def class_weights(labels: np.ndarray, classes: int, settings: Classification) -> Tensor | None:
    """Return the weight of each class in the loss, (classes,) float32; None: all count alike.

    "balanced" is inverse to the number of images, so that all classes together weigh the same,
    with a mean of 1 over the labels. A class without images weighs 1.

    Args:
        labels: of the training images: int (N,), or several each, bool (N, classes).
        classes: number of classes.
        settings: its class_weights.
    """
    match settings.class_weights:
        case "none":
            return None
        case "balanced":
            multi_label = labels.ndim == 2
            counts = labels.sum(0) if multi_label else np.bincount(labels, minlength=classes)
            present = counts > 0
            each = counts.sum() / max(int(present.sum()), 1)
            weights = np.where(present, each / np.maximum(counts, 1), 1.0)
            return torch.from_numpy(weights.astype(np.float32))
        case _:
            raise SpecError(f"There are no class weights '{settings.class_weights}'.")
