"""What a model says of images of which only some patches show."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vitral.explanation.request import Question

MOST, PIXELS = 64, 64 * 224 * 224  # images of one forward pass, and pixels of them all


def watched(
    model: nn.Module,
    images: Tensor,
    owners: Tensor,
    shown: Tensor,
    targets: Tensor,
    question: Question,
) -> Tensor:
    """Log-probability of a class while patches are hidden under their image's mean colour.

    Args:
        model: in evaluation mode.
        images: (B, C, H, W), normalised.
        owners: int64 (n,), the image that each mask belongs to.
        shown: bool (n, rows, columns), the patches that stay.
        targets: int64 (B,), the class to watch in each image.
        question: how logits become probabilities.

    Returns (n,) float32 on the CPU, computed in batches that bound the memory.
    """
    row, column = (
        torch.arange(side, device=images.device) * count // side
        for side, count in zip(images.shape[2:], shown.shape[1:], strict=True)
    )
    network: Any = model
    mean = images.mean(dim=(2, 3), keepdim=True)
    count = min(MOST, max(1, PIXELS // images[0, 0].numel()))
    found = []
    with torch.inference_mode():
        for of, seen in zip(owners.split(count), shown.split(count), strict=True):
            own = of.to(images.device)
            pixels = seen.to(images.device)[:, row][:, :, column][:, None]
            logits = network(torch.where(pixels, images[own], mean[own]), any_size=True)
            scores = question.task.log_probabilities(logits)
            found.append(scores.gather(1, targets.to(scores.device)[own, None])[:, 0].cpu())
    return torch.cat(found)
