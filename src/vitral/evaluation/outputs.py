"""A stream of batches through a network: what it computes of every image that can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vitral.data.loader import Batch
from vitral.data.sources import Problem
from vitral.images import preprocess
from vitral.specs import ImageSpec


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of a network for a stream of batches, in the order of the stream.

    Attributes:
        values: float32 (N, D): logits, or representations.
        labels: int64 (N,), or bool (N, classes) of a multi-label split.
        indices: int64 (N,), positions in the split.
        failed: images that could not be decoded and are therefore not among the N.
    """

    values: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    failed: tuple[Problem, ...]


def compute_outputs(
    compute: Callable[[Tensor], np.ndarray],
    batches: Iterable[Batch],
    images: ImageSpec,
    device: torch.device,
) -> Outputs:
    """Compute something of every image of a stream that can be read; each counts once.

    Args:
        compute: normalised images (B, channels, height, width) -> float32 (B, D), such as
            `engine.logits`.
        batches: of uint8 images.
        images: how they are normalised.
        device: where they are normalised, that of the engine.
    """
    values: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    indices: list[np.ndarray] = []
    failed: list[Problem] = []
    for batch in batches:
        failed.extend(batch.failed)
        if len(batch.images):
            values.append(compute(preprocess.normalise(batch.images.to(device), images)))
            labels.append(batch.labels.numpy())
            indices.append(batch.indices.numpy())
    none = np.zeros(0, np.int64)
    return Outputs(
        values=np.concatenate(values) if values else np.zeros((0, 0), np.float32),
        labels=np.concatenate(labels) if labels else none,
        indices=np.concatenate(indices) if indices else none,
        failed=tuple(failed),
    )
