"""What training minimises: the labels' loss, and what a teacher adds to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vitral.errors import DataError, SpecError
from vitral.model import ViT
from vitral.specs import ImageSpec
from vitral.training.recipe import Objective
from vitral.weights import artifact
from vitral.weights.read import read_weights


def loss(
    outputs: tuple[Tensor, ...],
    targets: Tensor,
    settings: Objective,
    *,
    weights: Tensor | None = None,
    taught: Tensor | None = None,
    multi_label: bool = False,
) -> Tensor:
    """The sum over a batch of each sample's loss, in float32; divide by the samples of the step.

    With a teacher (DeiT, arXiv:2012.12877, equations 2 and 3) the class head learns the targets
    and the distillation head the teacher, each its share; one head learns both. Without one, every
    head learns the targets and counts alike.

    Args:
        outputs: logits (B, classes) of each head: one, or the class and the distillation token's.
        targets: classes, int64 (B,); mixed classes, float (B, classes); or multi-label, bool
            or mixed float (B, classes).
        weights: (classes,) of class_weights. A sample counts as its class does, a mixed one as
            the mean of its classes; with multi-label targets each class's column has its own.
        taught: the teacher's logits (B, classes).
        multi_label: whether an image may have several labels, or none.

    Raises SpecError for multi-label targets with a softmax or a teacher.
    """
    heads = [logits.float() for logits in outputs]
    if multi_label and (settings.loss == "softmax" or taught is not None):
        raise SpecError(
            "Images with several labels need objective.loss sigmoid or bce, and no teacher."
        )
    columns = weights if multi_label else None
    if taught is None:
        losses = torch.stack(
            [_labels(x, targets, settings, columns, multi_label) for x in heads]
        ).mean(0)
    else:
        share = settings.distill_share
        losses = (1 - share) * _labels(heads[0], targets, settings, columns, multi_label)
        losses = losses + share * _teacher(heads[-1], taught.float(), settings)
    if weights is not None and not multi_label:
        losses = losses * _counts(targets, weights)
    return losses.sum()


def _labels(
    logits: Tensor, targets: Tensor, settings: Objective, columns: Tensor | None, multi_label: bool
) -> Tensor:
    """(B,) losses of one head against the labels; `columns` are weights of classes or None."""
    smoothing = settings.label_smoothing
    match settings.loss:
        case "softmax":
            return F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        case "sigmoid":
            return _binary(logits, _full(targets, logits), columns).sum(1)
        case "bce":
            whole = (_full(targets, logits) > 0).to(logits.dtype)
            # multi-label targets are as many yes-or-no questions, one label is one of all classes
            spread = 0.5 if multi_label else 1.0 / logits.shape[1]
            whole = whole * (1 - smoothing) + smoothing * spread
            return _binary(logits, whole, columns).mean(1)
        case _:
            raise SpecError(f"There is no loss '{settings.loss}'.")


def _binary(logits: Tensor, targets: Tensor, columns: Tensor | None) -> Tensor:
    """(B, classes): each class's own yes-or-no question."""
    return F.binary_cross_entropy_with_logits(logits, targets, columns, reduction="none")


def _teacher(logits: Tensor, taught: Tensor, settings: Objective) -> Tensor:
    """(B,) losses of one head against the teacher's answers."""
    match settings.distill:
        case "hard":
            return F.cross_entropy(logits, taught.argmax(1), reduction="none")
        case "soft":
            # the teacher's divergence from the student, as DeiT's code has it; its code also
            # divides by the classes, which equation 2 does not
            t = settings.temperature
            mine, theirs = F.log_softmax(logits / t, 1), F.log_softmax(taught / t, 1)
            return F.kl_div(mine, theirs, reduction="none", log_target=True).sum(1) * t**2
        case _:
            raise SpecError(f"There is no way to distill '{settings.distill}'.")


def _full(targets: Tensor, logits: Tensor) -> Tensor:
    """(B, classes) in the type of the logits."""
    if targets.ndim == 1:
        targets = F.one_hot(targets, logits.shape[1])
    return targets.to(logits.dtype)


def _counts(targets: Tensor, weights: Tensor) -> Tensor:
    """(B,): the weight of each sample's class, or the mean of its classes' by their shares."""
    if targets.ndim == 1:
        return weights[targets]
    return (targets * weights).sum(1) / targets.sum(1).clamp(min=1e-12)


def class_weights(labels: np.ndarray, classes: int, settings: Objective) -> Tensor | None:
    """(classes,) float32, or None where every image counts alike.

    "balanced" is inverse to the number of images, so that all classes together weigh the same,
    with a mean of 1 over the labels. A class without images weighs 1.

    Args:
        labels: of the training images: int (N,), or multi-label, bool (N, classes).
        classes: number of classes.
        settings: its class_weights.
    """
    match settings.class_weights:
        case "none":
            return None
        case "balanced":
            multi_label = labels.ndim == 2
            counts = labels.sum(0) if multi_label else np.bincount(labels, minlength=classes)
            seen = counts > 0
            each = counts.sum() / max(int(seen.sum()), 1)
            weights = np.where(seen, each / np.maximum(counts, 1), 1.0)
            return torch.from_numpy(weights.astype(np.float32))
        case _:
            raise SpecError(f"There are no class weights '{settings.class_weights}'.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """A trained network that answers for the images of a student.

    Attributes:
        model: in evaluation mode, without gradients.
        images: the preprocessing it expects; `student` is that of the images it is given.
        order: (classes,) its index of each class of the student.
    """

    model: ViT
    images: ImageSpec
    student: ImageSpec
    order: Tensor

    @classmethod
    def read(
        cls,
        settings: Objective,
        images: ImageSpec,
        classes: Sequence[str],
        device: torch.device,
        *,
        announce: Callable[[str], None] = print,
    ) -> Teacher:
        """The teacher of the settings, for a student of these images and classes.

        `announce` is told of a download before it begins. Raises WeightsError for weights that
        cannot be read, SpecError for a teacher that reads no RGB images, DataError for classes of
        the student that it does not know by name.
        """
        assert settings.teacher is not None
        weights = read_weights(settings.teacher, announce=announce)
        card = weights.card
        if card.model.channels != 3:
            raise SpecError(
                f"The teacher {settings.teacher} reads images of {card.model.channels} channels, "
                f"and training has 3; take another --set objective.teacher."
            )
        count = Counter(card.classes)
        unknown = [name for name in classes if count[name] != 1]
        if unknown and tuple(classes) != card.classes:
            known = ", ".join(card.classes[:3]) or "none"
            raise DataError(
                f"The teacher {settings.teacher} does not know {len(unknown)} of the "
                f"{len(classes)} classes, '{unknown[0]}' among them (its own: {known}, ...); train "
                f"one on the same classes, or rename the folders as it names them."
            )
        places = {name: index for index, name in enumerate(card.classes)}
        same = tuple(classes) == card.classes  # a name may then stand twice, as in ImageNet's
        order = range(len(classes)) if same else [places[name] for name in classes]
        model = artifact.network(weights.tensors, card.model).requires_grad_(False)
        return cls(
            model=model.to(device),
            images=card.images,
            student=images,
            order=torch.tensor(list(order), device=device),
        )

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised for the student -> logits (B, classes) in the student's order."""
        mine, theirs = self.student, self.images
        if (mine.size, mine.mean, mine.std) != (theirs.size, theirs.mean, theirs.std):
            values = images.float() * _channels(mine.std, images) + _channels(mine.mean, images)
            if mine.size != theirs.size:
                values = F.interpolate(
                    values, theirs.size, mode=theirs.interpolation, antialias=True
                ).clamp(0, 1)  # bicubic overshoots
            images = (values - _channels(theirs.mean, images)) / _channels(theirs.std, images)
        return self.model(images)[:, self.order].float()


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).view(-1, 1, 1)
