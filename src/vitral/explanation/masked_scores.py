"""Score images of which only some patches show."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitral.explanation.request import ExplainRequest
from vitral.model import ViT

_MAX_IMAGES = 64  # of one forward pass
_MAX_PIXELS = 64 * 224 * 224  # of all images of one forward pass


def masked_log_probs(
    model: ViT,
    images: Tensor,
    owners: Tensor,
    shown: Tensor,
    targets: Tensor,
    request: ExplainRequest,
    logits_of: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Score a class while patches are hidden under the mean colour of their image.

    Args:
        model: in evaluation mode.
        images: (B, C, H, W), normalised.
        owners: int64 (n,), the image that each mask belongs to.
        shown: bool (n, rows, columns), the patches that stay.
        targets: int64 (B,), the class to score in each image.
        request: its task says how logits become probabilities.
        logits_of: computes logits of images in the model's place, such as a faster engine.

    Returns log-probabilities (n,), float32 on the CPU, computed in batches that bound the memory.
    """
    row, column = (
        torch.arange(side, device=images.device) * count // side
        for side, count in zip(images.shape[2:], shown.shape[1:], strict=True)
    )
    mean = images.mean(dim=(2, 3), keepdim=True)
    count = min(_MAX_IMAGES, max(1, _MAX_PIXELS // images[0, 0].numel()))
    log_probs = []
    with torch.inference_mode():
        for part_owners, masks in zip(owners.split(count), shown.split(count), strict=True):
            owner = part_owners.to(images.device)
            pixels = masks.to(images.device)[:, row][:, :, column][:, None]
            hidden = torch.where(pixels, images[owner], mean[owner])
            logits = model(hidden, any_size=True) if logits_of is None else logits_of(hidden)
            scores = request.task.log_probabilities(logits)
            log_probs.append(scores.gather(1, targets.to(scores.device)[owner, None])[:, 0].cpu())
    return torch.cat(log_probs)
