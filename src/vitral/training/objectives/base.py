"""An objective: what a run minimises, with its modules, its validation and its score.

The one loop asks an objective four things, and knows neither labels nor logits:

    loss = objective(batch, position)       # of a micro-batch; DDP and FSDP wrap this call
    objective.after_update(step)            # such as an averaged teacher
    objective.observe(batch)                # what validation keeps of each image
    objective.score(observed)               # what that amounts to
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.loader import Batch, View
from vitral.engines.base import Precision
from vitral.engines.torch_engine import autocast
from vitral.evaluation import Score
from vitral.evaluation.fit import Fitted
from vitral.model import StepSamples, ViT
from vitral.specs import ImageSpec
from vitral.specs.tree import ClassTree

BACKBONE = "backbone."


@dataclass(frozen=True, slots=True)
class StepPosition:
    """The place of a micro-batch in its step, so that how a step is cut changes no random choice.

    Attributes:
        seed: of what is drawn once for all images of the step, such as the weight of mixup.
        samples: which images of the step the micro-batch holds.
    """

    seed: int
    samples: StepSamples


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of a micro-batch as sums over its images; the step divides by all of its images.

    Attributes:
        total: float32 scalar, in the graph.
        measures: what is shown and logged beside the loss, by name: scalars without a gradient,
            sums over the images of shares from 0 to 1. The names are the same in every step.
    """

    total: Tensor
    measures: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observed:
    """The values that validation kept of every image, in the order of the split.

    Attributes:
        values: float32 (N, k): logits, or whatever the objective's `observe` returns.
        labels: int64 (N,), or bool (N, classes) where an image has several.
        keys: N names of images.
    """

    values: np.ndarray
    labels: np.ndarray
    keys: list[str]


class Objective(nn.Module):
    """Everything that learns in a run, and the loss that it learns by.

    The parameters of all submodules are trained, averaged and saved for a resume. The backbone
    alone becomes the artifact: what else an objective needs (a decoder, a mask token) stays behind.
    A frozen network, such as a teacher, must not be a submodule.

    Attributes:
        backbone: the network that becomes the artifact.
        images: its preprocessing.
        views: the training views of each image, in the order of `Batch.views`.
        precision: of the forward pass, "auto", "fp32" or "bf16".
    """

    def __init__(
        self,
        backbone: ViT,
        images: ImageSpec,
        views: Sequence[View],
        precision: Precision = "auto",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.images = images
        self.views = tuple(views)
        self.precision = precision

    def forward(self, batch: Batch, position: StepPosition) -> Loss:
        """Return the loss of a micro-batch, in training mode."""
        raise NotImplementedError

    def after_update(self, step: int) -> None:
        """Follow the optimizer's step number `step`, counted from 0; by default nothing happens."""

    def observe(self, batch: Batch, backbone: ViT | None = None) -> Tensor:
        """Return what validation keeps of each image, (B, k), in evaluation mode.

        `backbone` gives other weights of the same network, such as those of best/.
        """
        raise NotImplementedError

    def score(self, observed: Observed, fitted: Fitted | None = None) -> Score:
        """Return what observed images amount to; `fitted` is what was fitted to these very ones."""
        raise NotImplementedError

    def remark(self, score: Score) -> str | None:
        """Return a sentence that a person should read after a validation, if there is one."""
        return None

    def fit(
        self, observed: Observed, tree: ClassTree | None = None, *, fresh: bool = False
    ) -> Fitted:
        """Return what is fitted to validation images and travels in the artifact; see fit.fit.

        `tree` groups the classes; `fresh` says that the images choose no weights.
        """
        return Fitted()

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which the networks compute: bfloat16 where that is faster."""
        return autocast(self.precision, self.device, self.backbone.spec.width)

    @property
    def device(self) -> torch.device:
        """Return the device that the objective computes on."""
        return next(self.parameters()).device


def short_name(name: str) -> str:
    """Return the name of a parameter as resume slots and messages have it.

    The backbone's parameters go by the network's own names, all others by the objective's.
    """
    return name.removeprefix(BACKBONE)
