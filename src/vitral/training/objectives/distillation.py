"""Distillation: a student learns the labels, and a trained teacher's answers beside them (DeiT)."""

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
from vitral.training.objectives.classification import (
    ClassificationObjective,
    label_losses,
    weighted,
)
from vitral.training.recipe import Classification, Recipe
from vitral.weights import artifact
from vitral.weights.known_classes import Renames, renamed
from vitral.weights.read import read_weights


class DistillationObjective(ClassificationObjective):
    """Learns the labels and a teacher's answers (DeiT, arXiv:2012.12877, equations 2 and 3).

    The class head learns the labels and the distillation head the teacher, each its share of the
    loss; a network with one head learns both with it.
    """

    def __init__(
        self,
        backbone: ViT,
        recipe: Recipe,
        classes: tuple[str, ...],
        labels: np.ndarray,
        teacher: Teacher,
    ) -> None:
        super().__init__(backbone, recipe, classes, labels)
        self.teacher = teacher  # no module: it is frozen, and no part of the resume state
        shown = labels.any(0) if self.multi_label else np.bincount(labels, minlength=len(classes))
        self.shown = torch.from_numpy(np.flatnonzero(shown)).to(self.device)

    def losses(self, outputs: tuple[Tensor, ...], targets: Tensor, images: Tensor) -> Tensor:
        """Return the loss of each image, float32 (B,): the labels' share and the teacher's."""
        with self.autocast():
            taught = self.teacher(images)
        if self.settings.distill == "known":
            return kept_losses(
                outputs,
                targets,
                taught,
                self.settings,
                known=self.teacher.known,
                shown=self.shown,
                weights=self.class_weights,
                multi_label=self.multi_label,
            )
        return losses(outputs, targets, taught, self.settings, weights=self.class_weights)


def losses(
    outputs: tuple[Tensor, ...],
    targets: Tensor,
    taught: Tensor,
    settings: Classification,
    *,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the loss of each image, float32 (B,): the labels' share and the teacher's.

    The first head learns the labels and the last one the teacher; a single head learns both.

    Args:
        outputs: logits (B, classes) of each head.
        targets: classes, int64 (B,), or mixed classes, float (B, classes).
        taught: the teacher's logits (B, classes).
        settings: how the labels and the teacher are learnt; distill_share is the teacher's part.
        weights: (classes,) of `class_weights`.
    """
    share = settings.distill_share
    each = (1 - share) * label_losses(outputs[0].float(), targets, settings)
    each = each + share * teacher_losses(outputs[-1].float(), taught.float(), settings)
    return weighted(each, targets, weights)


def kept_losses(  # noqa: PLR0913 - each has a name at every call
    outputs: tuple[Tensor, ...],
    targets: Tensor,
    taught: Tensor,
    settings: Classification,
    *,
    known: Tensor,
    shown: Tensor,
    weights: Tensor | None = None,
    multi_label: bool = False,
) -> Tensor:
    """Return the loss of each image, float32 (B,), of learning without forgetting (LwF).

    Every head learns the labels, among the classes that images show, and the teacher's answers
    about the classes that it knows (Li and Hoiem 2016, equations 2 and 3): a class that no image
    shows is neither asked for nor pushed down.

    Args:
        outputs: logits (B, classes) of each head.
        targets: as of `losses`; with several labels bool or mixed float (B, classes).
        taught: the teacher's logits (B, known).
        settings: as of `losses`.
        known: int64 (known,), the student's number of each class that the teacher knows.
        shown: int64 (shown,), the numbers of the classes that a training image has.
        weights: (classes,) of `class_weights`.
        multi_label: whether an image may have several labels, or none.
    """
    share = settings.distill_share
    asked = targets
    if targets.ndim == 2:
        asked = targets[:, shown]
    elif len(shown) < outputs[0].shape[1]:
        asked = torch.searchsorted(shown, targets)
    columns = weights[shown] if multi_label and weights is not None else None
    total = outputs[0].new_zeros(len(targets), dtype=torch.float32)
    for logits in outputs:
        own = logits.float()
        learnt = label_losses(
            own[:, shown], asked, settings, columns=columns, multi_label=multi_label
        )
        kept = teacher_losses(own[:, known], taught.float(), settings, multi_label=multi_label)
        total = total + (1 - share) * learnt + share * kept
    mean = total / len(outputs)
    return mean if multi_label else weighted(mean, targets, weights)


def teacher_losses(
    logits: Tensor, taught: Tensor, settings: Classification, *, multi_label: bool = False
) -> Tensor:
    """Return the loss of each image, (B,), of one head against the teacher's logits.

    Args:
        logits, taught: float32 (B, classes), the student's and the teacher's.
        settings: its distill and temperature.
        multi_label: whether each class is a question of its own, answered by its sigmoid.
    """
    if multi_label:
        each = F.binary_cross_entropy_with_logits(logits, taught.sigmoid(), reduction="none")
        return each.sum(1) if settings.loss == "sigmoid" else each.mean(1)
    match settings.distill:
        case "hard":
            return F.cross_entropy(logits, taught.argmax(1), reduction="none")
        case "soft" | "known":
            # the teacher's divergence from the student, as DeiT's code has it; its code also
            # divides by the classes, which equation 2 does not
            t = settings.temperature
            student = F.log_softmax(logits / t, 1)
            teacher = F.log_softmax(taught / t, 1)
            return F.kl_div(student, teacher, reduction="none", log_target=True).sum(1) * t**2
        case _:
            raise SpecError(f"There is no way to distill '{settings.distill}'.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """A trained network that answers for the images of a student.

    Attributes:
        model: in evaluation mode, without gradients.
        images: the preprocessing it expects; `student` is that of the images it is given.
        order: its index of each class of the student that it knows.
        known: the student's index of each of those; all of them, unless it is to keep them.
    """

    model: ViT
    images: ImageSpec
    student: ImageSpec
    order: Tensor
    known: Tensor

    @classmethod
    def read(
        cls,
        settings: Classification,
        images: ImageSpec,
        classes: Sequence[str],
        device: torch.device,
        *,
        rename: Renames = (),
        announce: Callable[[str], None] = print,
    ) -> Teacher:
        """Read the teacher of the settings, for a student of these images and classes.

        `rename` gives its classes other names; `announce` is called before a download begins.

        Raises WeightsError for weights that
        cannot be read, SpecError for a teacher that reads no RGB images, DataError for classes of
        the student that it does not know by name.
        """
        assert settings.teacher is not None
        weights = read_weights(settings.teacher, announce=announce)
        keeps = settings.distill == "known"
        weights = renamed(weights, rename) if keeps else weights
        card = weights.card
        if card.model.channels != 3:
            raise SpecError(
                f"The teacher {settings.teacher} reads images of {card.model.channels} channels, "
                f"and training has 3; take another --set objective.teacher."
            )
        count = Counter(card.classes)
        unknown = [name for name in classes if count[name] != 1]
        if unknown and tuple(classes) != card.classes and not (keeps and set(count) & set(classes)):
            first = ", ".join(card.classes[:3]) or "none"
            raise DataError(
                f"The teacher {settings.teacher} does not know {len(unknown)} of the "
                f"{len(classes)} classes, '{unknown[0]}' among them (its own: {first}, ...); train "
                f"one on the same classes, or rename the folders as it names them."
            )
        places = {name: index for index, name in enumerate(card.classes)}
        same = tuple(classes) == card.classes  # a name may then stand twice, as in ImageNet's
        known = [row for row, name in enumerate(classes) if same or name not in unknown]
        order = known if same else [places[classes[row]] for row in known]
        if remark := _stretched(card.images, images):
            announce(f"teacher {settings.teacher} {remark}")
        model = artifact.network(weights.tensors, card.model).requires_grad_(False)
        return cls(
            model=model.to(device),
            images=card.images,
            student=images,
            order=torch.tensor(order, device=device),
            known=torch.tensor(known, device=device),
        )

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised for the student -> logits (B, classes) in the student's order."""
        source = self.student
        teacher = self.images
        if (source.size, source.mean, source.std) != (teacher.size, teacher.mean, teacher.std):
            values = images.float() * _channels(source.std, images) + _channels(source.mean, images)
            if source.size != teacher.size:
                values = F.interpolate(
                    values, teacher.size, mode=teacher.interpolation, antialias=True
                ).clamp(0, 1)  # bicubic overshoots
            images = (values - _channels(teacher.mean, images)) / _channels(teacher.std, images)
        return self.model(images)[:, self.order].float()


def _stretched(teacher: ImageSpec, student: ImageSpec) -> str | None:
    """A remark where the student's views, resized, show things that the teacher has not seen."""
    same = teacher.size[0] * student.size[1] == teacher.size[1] * student.size[0]
    if same and teacher.fit == student.fit:
        return None
    its, own = (f"{x.size[0]}x{x.size[1]} px with images.fit={x.fit}" for x in (teacher, student))
    return (
        f"has learnt from views of {its}, and is shown the student's, {own}: it may answer "
        f"otherwise about what they stretch or pad."
    )


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).view(-1, 1, 1)
